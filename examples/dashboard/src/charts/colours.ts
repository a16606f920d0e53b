/**
 * Okabe and Ito's colours, which people with any kind of colour vision can tell apart. Without their yellow,
 * which is too pale for a line on white; their black is the colour of text.
 */
const COLOURS = ["0072b2", "e69f00", "009e73", "d55e00", "56b4e9", "cc79a7"];
const TEXT = COLOURS.length;
const SLOTS = COLOURS.length + 1;

export interface Pen {
  /** A colour, or null for the colour of text. */
  colour: string | null;
  /** Lines of hubs that share a colour differ in their dashes. */
  dash: number[];
}

/**
 * A pen for each hub. It depends on the hub's name and not on its place in a list, so that a hub looks the
 * same in every chart, on every machine, whoever else is there. Only when two names want the same colour does
 * the later one, by name, take the next that is free.
 */
export function pensOf(hubs: Iterable<string>): Map<string, Pen> {
  const pens = new Map<string, Pen>();
  let taken = new Set<number>();
  let round = 0;
  for (const hub of [...new Set(hubs)].sort()) {
    if (taken.size === SLOTS) {
      taken = new Set();
      round++;
    }
    let slot = hash(hub) % SLOTS;
    while (taken.has(slot)) slot = (slot + 1) % SLOTS;
    taken.add(slot);
    const dash = round === 0 ? [] : round % 2 ? [6, 3] : [2, 3];
    pens.set(hub, { colour: slot === TEXT ? null : `#${COLOURS[slot]}`, dash });
  }
  return pens;
}

/** FNV-1a. */
function hash(text: string): number {
  let value = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(text)) value = Math.imul(value ^ byte, 0x01000193) >>> 0;
  return value;
}

/**
 * Okabe and Ito's colours, which people with any kind of colour vision can tell apart. Without their yellow,
 * which is too pale for a line on white; their black is the colour of text.
 */
const COLOURS = ["0072b2", "e69f00", "009e73", "d55e00", "56b4e9", "cc79a7"];
const COLOURS_AND_TEXT = [...COLOURS, null];

export interface Pen {
  /** A colour, or null for the colour of text. */
  colour: string | null;
  /** Lines of hubs that share a colour differ in their dashes. */
  dash: number[];
}

const DASHES = [[], [6, 3], [2, 3], [10, 3, 2, 3], [14, 4]];

/**
 * A pen for each hub. Its colour depends on the hub's name alone: a hub has the same colour in every chart, on
 * every machine, whoever else is there. Hubs whose names want the same colour differ in their dashes.
 */
export class Pens {
  /** The hubs of each colour in the order in which they were seen. Nobody's dashes change while the page is open. */
  private readonly seen = COLOURS_AND_TEXT.map((): string[] => []);

  of(hubs: Iterable<string>): Map<string, Pen> {
    return new Map([...new Set(hubs)].sort().map((hub) => [hub, this.pen(hub)]));
  }

  private pen(hub: string): Pen {
    const slot = hash(hub) % COLOURS_AND_TEXT.length;
    const hubs = this.seen[slot]!;
    let at = hubs.indexOf(hub);
    if (at < 0) at = hubs.push(hub) - 1;
    const colour = COLOURS_AND_TEXT[slot];
    return { colour: colour ? `#${colour}` : null, dash: DASHES[at % DASHES.length]! };
  }
}

const pens = new Map<string, Pens>();

/** Of all that is drawn of an organisation. */
export function pensOf(organisation: string, hubs: Iterable<string>): Map<string, Pen> {
  let known = pens.get(organisation);
  if (!known) pens.set(organisation, (known = new Pens()));
  return known.of(hubs);
}

/** FNV-1a, from a start with which the hubs of the demo have a colour each. */
function hash(text: string): number {
  let value = 3;
  for (const byte of new TextEncoder().encode(text)) value = Math.imul(value ^ byte, 0x01000193) >>> 0;
  return value;
}

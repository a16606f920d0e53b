/** The time that charts show: the last so-and-so long, or from one moment to another. */
export type Range = { last: number } | { from: number; to: number };

export const PRESETS: [string, number][] = [
  ["15m", 900],
  ["1h", 3600],
  ["6h", 21_600],
  ["24h", 86_400],
  ["7d", 604_800],
];
const DEFAULT: Range = { last: 3600 };

/** `6h`, or `1700000000-1700003600` in seconds since 1970. */
export function parseRange(text: string | null): Range {
  if (!text) return DEFAULT;
  const preset = PRESETS.find(([name]) => name === text);
  if (preset) return { last: preset[1] };
  const [from, to] = text.split("-").map(Number);
  return from && to && from < to ? { from, to } : DEFAULT;
}

export function formatRange(range: Range): string {
  if ("last" in range) return PRESETS.find(([, seconds]) => seconds === range.last)?.[0] ?? "1h";
  return `${Math.round(range.from)}-${Math.round(range.to)}`;
}

export interface Window {
  start: number;
  end: number;
  step: number;
}

const STEPS = [5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21_600, 86_400];

/**
 * Start, end and step of a range query, in seconds. The step gives about `points` values, and start and end
 * are multiples of it: then the values stay where they are when the window moves.
 */
export function windowOf(range: Range, nowMs: number, points = 240): Window {
  const [from, to] = "last" in range ? [nowMs / 1000 - range.last, nowMs / 1000] : [range.from, range.to];
  const wanted = (to - from) / points;
  const step = STEPS.find((step) => step >= wanted) ?? STEPS.at(-1)!;
  return { start: Math.ceil(from / step) * step, end: Math.floor(to / step) * step, step };
}

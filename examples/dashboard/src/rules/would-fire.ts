/** When a rule would have fired, from what its expression returned. */
import type { Columns } from "../charts/series.ts";

export interface Span {
  from: number;
  to: number;
}

const UNITS: Record<string, number> = { ms: 0.001, s: 1, m: 60, h: 3600, d: 86_400, w: 604_800, y: 31_536_000 };

/** Prometheus' durations in seconds: `1h30m`. Empty is none; null is a mistake. */
export function durationSeconds(text: string): number | null {
  const trimmed = text.trim();
  if (trimmed === "" || trimmed === "0") return 0;
  if (!/^(?:\d+(?:ms|[smhdwy]))+$/.test(trimmed)) return null;
  let seconds = 0;
  for (const [, number, unit] of trimmed.matchAll(/(\d+)(ms|[smhdwy])/g)) seconds += Number(number) * UNITS[unit!]!;
  return seconds;
}

/**
 * The times in which each series was returned for as long as the rule's `for` asks, from then on. Exact to
 * the step of the query: what was shorter than a step may be missing.
 */
export function firingSpans({ times, columns }: Columns, forSeconds: number): Map<string, Span[]> {
  const spans = new Map<string, Span[]>();
  for (const { name, values } of columns) {
    const found: Span[] = [];
    let since: number | null = null;
    times.forEach((time, at) => {
      if (values[at] === null) {
        since = null;
        return;
      }
      since ??= time;
      if (time - since < forSeconds) return;
      const open = found.at(-1);
      // The same span as long as the series did not end in between.
      if (open && open.from === since + forSeconds) open.to = time;
      else found.push({ from: since + forSeconds, to: time });
    });
    if (found.length) spans.set(name, found);
  }
  return spans;
}

/** Spans of several series as one, for a chart's background. */
export function union(all: Iterable<Span[]>): Span[] {
  const sorted = [...all].flat().sort((a, b) => a.from - b.from);
  const merged: Span[] = [];
  for (const span of sorted) {
    const last = merged.at(-1);
    if (last && span.from <= last.to) last.to = Math.max(last.to, span.to);
    else merged.push({ ...span });
  }
  return merged;
}

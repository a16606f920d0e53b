/** From Prometheus' streams to columns: one time axis, and a null where a series has no value. */
import type { Window } from "../app/range.ts";
import { identity, type Labels, type Sample, type Stream } from "../data/prometheus.ts";

export interface Column {
  name: string;
  labels: Labels;
  values: (number | null)[];
  /** The value at the end of the range, whatever the step; null if there is none. Undefined if it was not asked for. */
  last?: number | null;
}
export interface Columns {
  times: number[];
  columns: Column[];
}

/**
 * `newest` is what the same expression returns at the end of the range. Without it, whether a series goes on is
 * known only to the step, which is an hour in a range of a week.
 */
export function columnsOf(streams: Stream[], { start, end, step }: Window, newest?: Sample[]): Columns {
  const length = Math.max(0, Math.round((end - start) / step) + 1);
  const times = Array.from({ length }, (_, at) => start + at * step);
  const lasts = new Map(newest?.map(({ metric, value }) => [identity(metric), finite(value[1])]));
  const names = namesOf(streams.map(({ metric }) => metric));
  const columns = streams.map(({ metric, values }, stream) => {
    const column: (number | null)[] = new Array(length).fill(null);
    for (const [time, text] of values) {
      const at = Math.round((time - start) / step);
      const value = Number(text);
      if (at >= 0 && at < length && Number.isFinite(value)) column[at] = value;
    }
    const last = newest && (lasts.get(identity(metric)) ?? null);
    return { name: names[stream]!, labels: metric, values: column, ...(last === undefined ? {} : { last }) };
  });
  columns.sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
  return { times, columns };
}

function finite(text: string): number | null {
  return Number.isFinite(Number(text)) ? Number(text) : null;
}

/** What tells the series of a chart apart: the hub, and the labels that are not the same for all. */
export function namesOf(all: Labels[]): string[] {
  const differs = (name: string) => all.some((labels) => labels[name] !== all[0]![name]);
  const short = all.map(({ __name__: metric = "", hub, ...others }) => {
    const kept = Object.keys(others).filter(differs).map((name) => `${name}=${others[name]}`);
    if (hub !== undefined) return [hub, ...kept].join(" ");
    return kept.join(" ") || metric || "value";
  });
  if (new Set(short).size === short.length) return short;
  // Only the metric's name is left to differ.
  return all.map(({ __name__: metric = "" }, at) => `${metric} ${short[at]}`);
}

export interface Summary {
  last: number | null;
  min: number | null;
  max: number | null;
}

/** Where the last value was not asked for, it is one of the last two of the axis: the newest may be on its way. */
export function summarise({ values, last }: Pick<Column, "values" | "last">): Summary {
  let min: number | null = null;
  let max: number | null = null;
  for (const value of values) {
    if (value === null) continue;
    if (min === null || value < min) min = value;
    if (max === null || value > max) max = value;
  }
  return { last: last !== undefined ? last : (values.at(-1) ?? values.at(-2) ?? null), min, max };
}

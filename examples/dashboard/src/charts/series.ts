/** From Prometheus' streams to columns: one time axis, and a null where a series has no value. */
import type { Window } from "../app/range.ts";
import type { Labels, Stream } from "../data/prometheus.ts";

export interface Column {
  name: string;
  labels: Labels;
  values: (number | null)[];
}
export interface Columns {
  times: number[];
  columns: Column[];
}

export function columnsOf(streams: Stream[], { start, end, step }: Window): Columns {
  const length = Math.max(0, Math.round((end - start) / step) + 1);
  const times = Array.from({ length }, (_, at) => start + at * step);
  const columns = streams.map(({ metric, values }) => {
    const column: (number | null)[] = new Array(length).fill(null);
    for (const [time, text] of values) {
      const at = Math.round((time - start) / step);
      const value = Number(text);
      if (at >= 0 && at < length && Number.isFinite(value)) column[at] = value;
    }
    return { name: nameOf(metric), labels: metric, values: column };
  });
  columns.sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
  return { times, columns };
}

/** The hub if that is all there is to tell; otherwise what Prometheus would print. */
export function nameOf({ __name__: metric = "", ...labels }: Labels): string {
  const { hub, ...others } = labels;
  const more = Object.entries(others);
  if (hub !== undefined && !more.length) return hub;
  if (hub !== undefined) return `${hub} ${more.map(([name, value]) => `${name}=${value}`).join(" ")}`;
  if (!more.length) return metric || "value";
  return `${metric}{${more.map(([name, value]) => `${name}="${value}"`).join(", ")}}`;
}

export interface Summary {
  last: number | null;
  min: number | null;
  max: number | null;
}

/** `last` is null if the series has ended before the last two values of the axis: the newest may be on its way. */
export function summarise(values: (number | null)[]): Summary {
  let min: number | null = null;
  let max: number | null = null;
  for (const value of values) {
    if (value === null) continue;
    if (min === null || value < min) min = value;
    if (max === null || value > max) max = value;
  }
  return { last: values.at(-1) ?? values.at(-2) ?? null, min, max };
}

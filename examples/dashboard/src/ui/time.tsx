import { absolute, relative } from "./units.ts";

/** Relative, with the time itself and its zone on hover. */
export function Ago({ at, now }: { at: string | number; now: number }) {
  const ms = typeof at === "number" ? at : Date.parse(at);
  return (
    <time dateTime={new Date(ms).toISOString()} title={absolute(ms)}>
      {relative(ms, now)}
    </time>
  );
}

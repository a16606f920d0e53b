import { absolute, ago } from "./units.ts";

/** How long ago something happened, with the time itself and its zone on hover. */
export function Ago({ at, now }: { at: string | number; now: number }) {
  const ms = typeof at === "number" ? at : Date.parse(at);
  return (
    <time dateTime={new Date(ms).toISOString()} title={absolute(ms)}>
      {ago(ms, now)}
    </time>
  );
}

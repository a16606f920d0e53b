import { absolute } from "../ui/units.ts";
import { CELL_S, type Cell, uptime } from "./hubs.ts";

const WORDS: Record<Cell, string> = { none: "no data", some: "some data missing", all: "all data" };

/** A day in quarters of an hour. Height says the same as colour. */
export function Strip({ cells, now }: { cells: Cell[]; now: number }) {
  const share = uptime(cells);
  const end = Math.floor(now / 1000 / CELL_S) * CELL_S;
  const text = share === null ? "no data in the last 24 hours" : `data in ${Math.round(share * 100)} % of the time since its first sample of the last 24 hours`;
  return (
    <svg class="strip" viewBox={`0 0 ${cells.length * 2} 18`} preserveAspectRatio="none" role="img" aria-label={text}>
      {cells.map((cell, at) => (
        <rect key={at} class={cell} x={at * 2} width="1.5" y={cell === "all" ? 0 : cell === "some" ? 6 : 15} height={cell === "all" ? 18 : cell === "some" ? 12 : 3}>
          <title>{`${absolute((end - (cells.length - 1 - at) * CELL_S) * 1000)}: ${WORDS[cell]}`}</title>
        </rect>
      ))}
    </svg>
  );
}

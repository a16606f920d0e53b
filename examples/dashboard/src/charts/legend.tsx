/** The series of a chart with their values: at the crosshair, or the last ones. A click hides or shows one. */
import { useState } from "preact/hooks";
import { number, type Unit } from "../ui/units.ts";
import { penOf } from "./chart.tsx";
import type { Pen } from "./colours.ts";
import { type Columns, summarise } from "./series.ts";

type By = "name" | "last" | "min" | "max";

interface Props {
  data: Columns;
  pens: Map<string, Pen>;
  unit?: Unit;
  cursor: number | null;
  hidden: ReadonlySet<string>;
  onToggle: (name: string) => void;
}

export function Legend({ data, pens, unit = "none", cursor, hidden, onToggle }: Props) {
  const [by, setBy] = useState<By>("name");
  const [down, setDown] = useState(false);
  const rows = data.columns.map((column) => {
    const summary = summarise(column);
    return { ...column, ...summary, last: cursor === null ? summary.last : (column.values[cursor] ?? null) };
  });
  rows.sort((a, b) => {
    const [x, y] = by === "name" ? [0, 0] : [a[by] ?? -Infinity, b[by] ?? -Infinity];
    return (x === y ? a.name.localeCompare(b.name, undefined, { numeric: true }) : x - y) * (down ? -1 : 1);
  });
  const head = (column: By, text: string) => (
    <th scope="col" class={column === "name" ? "" : "num"} aria-sort={by === column ? (down ? "descending" : "ascending") : "none"}>
      <button
        type="button"
        class="plain"
        onClick={() => {
          setDown(by === column ? !down : column !== "name");
          setBy(column);
        }}
      >
        {text}
        <span class="sort" aria-hidden="true">{by === column ? (down ? "↓" : "↑") : ""}</span>
      </button>
    </th>
  );
  return (
    <div class="legend">
      <table>
        <thead>
          <tr>
            {head("name", "Hub")}
            {head("last", cursor === null ? "Last" : "At line")}
            {head("min", "Min")}
            {head("max", "Max")}
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr key={row.name} class={hidden.has(row.name) ? "off" : ""}>
              <td>
                <button type="button" class="plain" aria-pressed={!hidden.has(row.name)} onClick={() => onToggle(row.name)}>
                  <Swatch pen={penOf(pens, row.name, row.labels.hub)} />
                  {row.name}
                </button>
              </td>
              <td class="num strong">{row.last === null ? <span class="muted">no data</span> : number(row.last, unit)}</td>
              <td class="num">{number(row.min, unit)}</td>
              <td class="num">{number(row.max, unit)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

export function Swatch({ pen }: { pen: Pen }) {
  return (
    <svg class="swatch" width="14" height="10" aria-hidden="true">
      <line x1="0" y1="5" x2="14" y2="5" stroke={pen.colour ?? "currentColor"} stroke-width="3" stroke-dasharray={pen.dash.join(" ")} />
    </svg>
  );
}

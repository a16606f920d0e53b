/** A time series chart. uPlot draws; this gives it data, colours, thresholds and bands. */
import { useEffect, useMemo, useRef } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { colour, useColourVersion } from "../app/theme.ts";
import type { Span } from "../rules/would-fire.ts";
import { clock, number, type Unit } from "../ui/units.ts";
import type { Pen } from "./colours.ts";
import type { Columns } from "./series.ts";

export interface Line {
  value: number;
  label: string;
}

interface Props {
  data: Columns;
  pens: Map<string, Pen>;
  unit?: Unit;
  lines?: Line[];
  bands?: Span[];
  height?: number;
  /** Names of series that are not drawn. */
  hidden?: ReadonlySet<string>;
  /** Charts of one group share the crosshair. */
  group?: string;
  /** The place in `data.times` that the crosshair is at; null without one. */
  onCursor?: (at: number | null) => void;
  /** A part was selected with the mouse (s). */
  onZoom?: (from: number, to: number) => void;
  /** What the chart shows, for those who do not see it. */
  label: string;
}

export function penOf(pens: Map<string, Pen>, name: string, hub: string | undefined): Pen {
  return pens.get(hub ?? name) ?? pens.get(name) ?? { colour: null, dash: [] };
}

export function Chart(props: Props) {
  const { data, pens, unit = "none", height = 200, hidden, group, label } = props;
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const latest = useRef(props);
  latest.current = props;
  const colours = useColourVersion();
  // A new plot only if what it consists of changes; otherwise it gets new data.
  const drawn = data.columns.map(({ name, labels }) => [name, penOf(pens, name, labels.hub)]);
  const shape = `${JSON.stringify(drawn)}|${[...(hidden ?? [])].join("\n")}|${unit}|${height}|${group}|${colours}`;
  const values = useMemo(
    () => [data.times, ...data.columns.map((column) => column.values)] as uPlot.AlignedData,
    [data],
  );

  useEffect(() => {
    const element = place.current!;
    const made = new uPlot(options(element.clientWidth, latest), values, element);
    plot.current = made;
    const resized = new ResizeObserver(() => {
      if (element.clientWidth !== made.width) made.setSize({ width: element.clientWidth, height });
    });
    resized.observe(element);
    return () => {
      resized.disconnect();
      made.destroy();
      plot.current = null;
    };
  }, [shape]);

  useEffect(() => {
    plot.current?.setData(values);
  }, [values, props.lines, props.bands]);

  return <div ref={place} class="chart" style={{ height: `${height}px` }} role="img" aria-label={label} />;
}

export function options(width: number, latest: { current: Props }): uPlot.Options {
  const { data, pens, unit = "none", height = 200, hidden, group } = latest.current;
  const text = colour("text");
  const muted = colour("muted");
  const rule = colour("line");
  const font = "11px Inter, system-ui, sans-serif";
  const axis = { stroke: muted, font, grid: { stroke: rule, width: 1 }, ticks: { stroke: rule, width: 1, size: 4 } };
  return {
    width,
    height,
    padding: [8, 20, 0, 0],
    legend: { show: false },
    cursor: {
      ...(group ? { sync: { key: group, setSeries: false } } : {}),
      points: { size: 6 },
      drag: { x: Boolean(latest.current.onZoom), y: false, setScale: false },
    },
    scales: { x: { time: true }, y: { range: (_, min, max) => rangeOf(min, max, latest.current.lines ?? []) } },
    axes: [
      { ...axis, space: clock(0, true).length > 8 ? 84 : 64, size: 28, values: (_, splits, __, ___, step) => splits.map((split) => timeTick(split, step)) },
      { ...axis, size: 64, space: 36, values: (_, splits) => splits.map((split) => number(split, unit)) },
    ],
    series: [
      {},
      ...data.columns.map(({ name, labels }) => {
        const pen = penOf(pens, name, labels.hub);
        return {
          label: name,
          show: !hidden?.has(name),
          stroke: pen.colour ?? text,
          width: 1.5,
          dash: pen.dash,
          spanGaps: false,
          // A value between two gaps is a point, or it would not be seen.
          points: { show: false, filter: lonely },
        };
      }),
    ],
    hooks: {
      drawClear: [(u) => drawBands(u, latest.current.bands ?? [])],
      // Before the series: no line and no text may cover data.
      drawAxes: [(u) => drawLines(u, latest.current.lines ?? [], unit)],
      setCursor: [(u) => latest.current.onCursor?.(u.cursor.left! < 0 ? null : (u.cursor.idx ?? null))],
      setSelect: [
        (u) => {
          if (u.select.width < 8) return;
          latest.current.onZoom?.(u.posToVal(u.select.left, "x"), u.posToVal(u.select.left + u.select.width, "x"));
          u.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
        },
      ],
    },
  };
}

/** The values, and a threshold that is not so far away that it would flatten them. */
function rangeOf(min: number | null, max: number | null, lines: Line[]): [number, number] {
  if (min === null || max === null) return [0, 1];
  let [low, high] = [min, max];
  const reach = Math.max(max - min, Math.abs(max) * 0.05, 1e-9) * 3;
  for (const { value } of lines) {
    if (value >= min - reach && value <= max + reach) [low, high] = [Math.min(low, value), Math.max(high, value)];
  }
  const margin = (high - low || Math.abs(high) || 1) * 0.08;
  return [low - margin, high + margin];
}

function timeTick(seconds: number, step: number): string {
  const date = new Date(seconds * 1000);
  const midnight = date.getHours() === 0 && date.getMinutes() === 0 && date.getSeconds() === 0;
  if (step >= 86_400 || (midnight && step >= 3600)) return date.toLocaleDateString(undefined, { day: "numeric", month: "short" });
  return clock(date.getTime(), step < 60);
}

function lonely(u: uPlot, series: number): number[] {
  const values = u.data[series]!;
  const found: number[] = [];
  values.forEach((value, at) => {
    if (value != null && values[at - 1] == null && values[at + 1] == null) found.push(at);
  });
  return found;
}

function drawBands(u: uPlot, bands: Span[]): void {
  const { left, top, width, height } = u.bbox;
  u.ctx.save();
  u.ctx.fillStyle = colour("critical-wash");
  for (const { from, to } of bands) {
    const x0 = Math.max(left, u.valToPos(from, "x", true));
    const x1 = Math.min(left + width, u.valToPos(to, "x", true));
    if (x1 >= x0) u.ctx.fillRect(x0, top, Math.max(x1 - x0, 2), height);
  }
  u.ctx.restore();
}

/** The name of a rule may be as wide as a phone; its value is what must be read. */
export function shortened(label: string, value: string, fits: (text: string) => boolean): string {
  for (let length = label.length; length > 0; length--) {
    const text = (length === label.length ? label : `${label.slice(0, length).trimEnd()}…`) + value;
    if (fits(text)) return text;
  }
  return value.trim();
}

function drawLines(u: uPlot, lines: Line[], unit: Unit): void {
  const { left, top, width, height } = u.bbox;
  const ratio = devicePixelRatio;
  u.ctx.save();
  u.ctx.strokeStyle = colour("critical");
  u.ctx.fillStyle = colour("critical");
  u.ctx.lineWidth = ratio;
  u.ctx.setLineDash([4 * ratio, 4 * ratio]);
  u.ctx.font = `${11 * ratio}px Inter, system-ui, sans-serif`;
  u.ctx.textAlign = "right";
  for (const { value, label } of lines) {
    const y = u.valToPos(value, "y", true);
    if (y < top || y > top + height) continue;
    u.ctx.beginPath();
    u.ctx.moveTo(left, y);
    u.ctx.lineTo(left + width, y);
    u.ctx.stroke();
    // Above the line, unless there is no room.
    u.ctx.textBaseline = y - top > 16 * ratio ? "bottom" : "top";
    const text = shortened(label, ` ${number(value, unit)}`, (words) => u.ctx.measureText(words).width <= width / 2);
    u.ctx.fillText(text, left + width - 4 * ratio, y + (y - top > 16 * ratio ? -2 : 3) * ratio);
  }
  u.ctx.restore();
}

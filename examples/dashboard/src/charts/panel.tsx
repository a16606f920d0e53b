/** A chart with its title, its legend and its query, which is one click away and can be changed. */
import { useMemo, useState } from "preact/hooks";
import { useApp } from "../app/context.ts";
import { setParams, useLocation } from "../app/location.ts";
import { formatRange, windowOf } from "../app/range.ts";
import { useLoad } from "../data/load.ts";
import type { Rule } from "../data/rows.ts";
import { FirstKey } from "../hubs/first-key.tsx";
import { PromqlField } from "../promql/field.tsx";
import { sameQuantity, thresholdOf } from "../rules/threshold.ts";
import { Icon, icons } from "../ui/icons.tsx";
import { ErrorNote, Skeleton } from "../ui/states.tsx";
import type { Unit } from "../ui/units.ts";
import { Chart, type Line } from "./chart.tsx";
import type { Pen } from "./colours.ts";
import { Legend } from "./legend.tsx";
import { columnsOf } from "./series.ts";

interface Props {
  /** Names the query in the page's address. */
  id: string;
  title: string;
  unit: Unit;
  expr: string;
  pens: Map<string, Pen>;
  rules: Rule[];
  /** No device of the organisation has written anything yet: no other range would show more. */
  isNew?: boolean;
}

export function Panel({ id, title, unit, expr: usual, pens, rules, isNew = false }: Props) {
  const { prometheus, range, now } = useApp();
  const { params } = useLocation();
  const expr = params.get(`q.${id}`) ?? usual;
  const [open, setOpen] = useState(expr !== usual);
  const [draft, setDraft] = useState(expr);
  const [cursor, setCursor] = useState<number | null>(null);
  const [hidden, setHidden] = useState<ReadonlySet<string>>(new Set());
  const window = windowOf(range, now);
  const key = `${prometheus.organisation} ${formatRange(range)} ${expr}`;
  const end = "last" in range ? now / 1000 : range.to;
  const series = useLoad(key, window.end, async (signal) => ({ streams: await prometheus.range(expr, window, signal), window }));
  // Asked at each tick: a window of a week moves once an hour.
  const newest = useLoad(`${key} newest`, end, (signal) => prometheus.instant(expr, end, signal));
  const data = useMemo(() => series.data && newest.data && columnsOf(series.data.streams, series.data.window, newest.data), [series.data, newest.data]);
  const { error, at, reload } = series.error || !newest.error ? series : newest;
  const run = (text: string) => setParams({ [`q.${id}`]: text.trim() === usual || !text.trim() ? null : text.trim() });
  const reset = () => {
    setDraft(usual);
    run(usual);
  };
  const toggle = (name: string) => {
    const next = new Set(hidden);
    if (!next.delete(name)) next.add(name);
    setHidden(next);
  };
  const queryId = `query-${id}`;
  return (
    <section class="card panel" aria-label={title} data-panel={id}>
      <header>
        <h2>{title}</h2>
        <button type="button" class="ghost small" aria-expanded={open} aria-controls={queryId} onClick={() => setOpen(!open)}>
          <Icon of={icons.Code} /> Query
        </button>
      </header>
      {open && (
        <form
          id={queryId}
          class="query"
          onSubmit={(event) => {
            event.preventDefault();
            run(draft);
          }}
        >
          <PromqlField value={draft} onInput={setDraft} onSubmit={run} label={`Query of ${title}`} />
          <button type="submit" class="small primary">Run</button>
          <button type="button" class="small" disabled={expr === usual && draft === usual} onClick={reset}>Reset</button>
        </form>
      )}
      {error && <ErrorNote error={error} retry={reload} small stale={data && at} />}
      {data && data.columns.length > 0 && (
        <>
          <Chart
            data={data}
            pens={pens}
            unit={unit}
            hidden={hidden}
            lines={linesFor(expr, rules)}
            group="overview"
            onCursor={setCursor}
            onZoom={(from, to) => setParams({ range: formatRange({ from, to }) })}
            label={`${title} of ${data.columns.length} series over time; the table below has the values`}
          />
          <Legend data={data} pens={pens} unit={unit} cursor={cursor} hidden={hidden} onToggle={toggle} />
        </>
      )}
      {data && !data.columns.length && (
        <div class="chart-empty">
          <p>{isNew ? "No device has written yet." : "No data in this time."}</p>
          {isNew ? <FirstKey /> : <p class="muted">Choose a longer range, or look at the query.</p>}
        </div>
      )}
      {!data && !error && <Skeleton shape="chart" />}
    </section>
  );
}

/** The thresholds of rules about what the chart shows. */
export function linesFor(expr: string, rules: Rule[]): Line[] {
  const lines: Line[] = [];
  for (const rule of rules) {
    const threshold = rule.enabled ? thresholdOf(rule.expr) : null;
    if (threshold && sameQuantity(threshold.left, expr)) lines.push({ value: threshold.value, label: rule.name });
  }
  return lines;
}

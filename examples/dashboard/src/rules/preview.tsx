/** What a rule would have done in the last day. */
import { useEffect, useMemo, useState } from "preact/hooks";
import { useApp } from "../app/context.ts";
import { windowOf } from "../app/range.ts";
import { Chart } from "../charts/chart.tsx";
import { pensOf } from "../charts/colours.ts";
import { Legend } from "../charts/legend.tsx";
import { columnsOf } from "../charts/series.ts";
import { useLoad } from "../data/load.ts";
import { ErrorNote, Skeleton } from "../ui/states.tsx";
import { absolute, clock, duration } from "../ui/units.ts";
import { thresholdOf } from "./threshold.ts";
import { durationSeconds, firingSpans, union } from "./would-fire.ts";

const WAIT_MS = 400;
const LISTED = 5;

interface Props {
  expr: string;
  forDuration: string;
  /** Whether the expression can be parsed. */
  whole: boolean;
  /** Whether the proxy has found a fault in it. */
  unsure: boolean;
}

export function Preview({ expr, forDuration, whole, unsure }: Props) {
  const { prometheus, now } = useApp();
  // What may be asked goes with the text: the verdict on a new text must not send the old one.
  const { expr: settled, ask } = useSettled(expr, whole && !unsure);
  const threshold = useMemo(() => thresholdOf(settled), [settled]);
  // It ends at a multiple of the step, so the day moves on every two minutes and not at each tick.
  const day = windowOf({ last: 86_400 }, now, 720);
  const { data, error, reload } = useLoad(`preview ${prometheus.organisation} ${ask ? settled : ""}`, day.end, async (signal) => {
    if (!ask) return null;
    const [result, quantity] = await Promise.all([
      prometheus.range(settled, day, signal),
      // The whole curve, also where it is below the threshold.
      threshold ? prometheus.range(threshold.left, day, signal) : null,
    ]);
    const returned = columnsOf(result, day);
    return { returned, shown: quantity ? columnsOf(quantity, day) : returned };
  });
  const seconds = durationSeconds(forDuration);
  const spans = useMemo(() => (data ? firingSpans(data.returned, seconds ?? 0) : new Map()), [data, seconds]);
  const bands = useMemo(() => union(spans.values()), [spans]);
  const [cursor, setCursor] = useState<number | null>(null);
  const [hidden, setHidden] = useState<ReadonlySet<string>>(new Set());
  const pens = useMemo(() => pensOf(prometheus.organisation, (data?.shown.columns ?? []).map(({ name, labels }) => labels.hub ?? name)), [data]);
  const lines = useMemo(() => (threshold ? [{ value: threshold.value, label: threshold.operator }] : []), [threshold]);
  const toggle = (name: string) => {
    const next = new Set(hidden);
    if (!next.delete(name)) next.add(name);
    setHidden(next);
  };
  const moments = [...spans].flatMap(([name, list]) => list.map((span: { from: number; to: number }) => ({ name, ...span }))).sort((a, b) => b.from - a.from);
  return (
    <section class="card panel" aria-label="Preview">
      <header><h2>The last day</h2><span class="muted small-text">a value every {duration(day.step)}</span></header>
      {!ask && <div class="chart-empty"><p>{settled.trim() ? "The expression has a fault, or is not complete. Correct it to see what the rule would do." : "Write an expression to see what the rule would do."}</p></div>}
      {ask && error && <ErrorNote error={error} retry={reload} small />}
      {ask && !data && !error && <Skeleton shape="chart" />}
      {ask && data && (
        <>
          {data.shown.columns.length ? (
            <>
              <Chart
                data={data.shown} pens={pens} lines={lines} bands={bands} hidden={hidden} height={220} onCursor={setCursor}
                label="the expression over the last day; the times in which the rule would have fired are listed below"
              />
              <Legend data={data.shown} pens={pens} cursor={cursor} hidden={hidden} onToggle={toggle} />
            </>
          ) : (
            <div class="chart-empty"><p>The expression returned nothing in the last day.</p><p class="muted">The rule would not have fired. Is the metric's name right?</p></div>
          )}
          <div class="moments" aria-live="polite">
            <p class="strong">
              {moments.length ? `It would have fired ${moments.length === 1 ? "once" : `${moments.length} times`}.` : "It would not have fired."}
              {seconds === null && " “For” is not a duration such as 5m."}
            </p>
            {moments.length > 0 && (
              <ul>
                {moments.slice(0, LISTED).map(({ name, from, to }) => (
                  <li key={`${name} ${from}`}>
                    <span class="strong">{name}</span> at <time title={absolute(from * 1000)}>{clock(from * 1000)}</time>
                    <span class="muted">{to >= day.end - day.step * 2 ? ", still" : ` for ${duration(Math.max(to - from, day.step))}`}</span>
                  </li>
                ))}
                {moments.length > LISTED && <li class="muted">and {moments.length - LISTED} more</li>}
              </ul>
            )}
          </div>
        </>
      )}
    </section>
  );
}

/** What was typed, once nobody types. */
function useSettled(expr: string, ask: boolean): { expr: string; ask: boolean } {
  const [settled, setSettled] = useState({ expr, ask });
  useEffect(() => {
    const timer = setTimeout(() => setSettled({ expr, ask }), WAIT_MS);
    return () => clearTimeout(timer);
  }, [expr, ask]);
  return settled;
}

import { useApp } from "../app/context.ts";
import { windowOf } from "../app/range.ts";
import { columnsOf } from "../charts/series.ts";
import { Sparkline } from "../charts/sparkline.tsx";
import { useLoad } from "../data/load.ts";
import type { AlertEvent, Rule } from "../data/rows.ts";
import { thresholdOf } from "../rules/threshold.ts";

/** The expression of the alert's rule over the last hour, for the series that the alert is about. */
export function ExpressionSparkline({ event, rule }: { event: AlertEvent; rule: Rule | undefined }) {
  const { prometheus, now } = useApp();
  const window = windowOf({ last: 3600 }, now, 60);
  const expr = rule ? (thresholdOf(rule.expr)?.left ?? rule.expr) : "";
  const { data } = useLoad(`${prometheus.organisation} ${expr} ${event.fingerprint}`, window.end, async (signal) => {
    if (!expr) return null;
    const { columns } = columnsOf(await prometheus.range(expr, window, signal), window);
    // The alert has the labels of its series, and those that the rule adds.
    return columns.find(({ labels }) => Object.entries(labels).every(([name, value]) => name === "__name__" || event.labels[name] === value));
  });
  if (!data) return <span class="sparkline-place" />;
  return <Sparkline values={data.values} label={`${data.name} in the last hour`} />;
}

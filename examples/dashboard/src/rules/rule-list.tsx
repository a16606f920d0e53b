import { canEdit, useApp, useChanges } from "../app/context.ts";
import { href, setParams, useLocation } from "../app/location.ts";
import { useLoad } from "../data/load.ts";
import type { Rule, RuleStatus } from "../data/rows.ts";
import { Icon, icons } from "../ui/icons.tsx";
import { Empty, ErrorNote, Skeleton } from "../ui/states.tsx";
import { Ago } from "../ui/time.tsx";
import { FaultyExpression } from "./faulty-expression.tsx";
import { StateChip } from "./states.tsx";

/** What wants to be looked at first. */
const ORDER = ["invalid", "failing", "error", "over_limit", "pending", "stored", "live", "disabled"];

export function RuleList() {
  const app = useApp();
  const { rows, now } = app;
  const { params } = useLocation();
  const { data, error, at, reload } = useLoad(`rules ${rows.organisation}`, useChanges("alert_rule_status"), async () => {
    const [rules, statuses] = await Promise.all([rows.rules(), rows.ruleStatuses()]);
    const byRule = new Map(statuses.map((status) => [status.rule_id, status]));
    return rules.map((rule) => ({ rule, status: byRule.get(rule.id) })).sort((a, b) => place(a) - place(b) || a.rule.name.localeCompare(b.rule.name));
  });
  const add = canEdit(app) && <a class="button primary" href={href("rules", "new")}><Icon of={icons.Plus} /> New rule</a>;
  const wanted = (params.get("find") ?? "").toLowerCase();
  const found = (data ?? []).filter(({ rule }) => `${rule.name} ${rule.expr}`.toLowerCase().includes(wanted));
  return (
    <>
      <div class="title">
        <h1>Rules</h1>
        {data && data.length > 0 && (
          <input type="search" aria-label="Filter rules" placeholder="Filter" value={params.get("find") ?? ""} onInput={(event) => setParams({ find: event.currentTarget.value || null }, true)} />
        )}
        <span class="spring" />
        {add}
      </div>
      {error && <ErrorNote error={error} retry={reload} stale={data && at} />}
      {!data && !error && <Skeleton shape="table" />}
      {data && !data.length && (
        <Empty title="No alert rules yet" action={add}>
          A rule watches an expression and fires when it returns something for long enough. The preview shows what it would have done in the last day.
        </Empty>
      )}
      {data && data.length > 0 && !found.length && <Empty title="No rule has this in its name or expression" />}
      {found.length > 0 && (
        <div class="card table-card">
          <table class="rows">
            <thead>
              <tr>
                <th scope="col">Rule</th>
                <th scope="col">State</th>
                <th scope="col" class="wide">Expression</th>
                <th scope="col">For</th>
                <th scope="col">Evaluated</th>
              </tr>
            </thead>
            <tbody>
              {found.map(({ rule, status }) => (
                <tr key={rule.id} data-rule={rule.name}>
                  <th scope="row">
                    <a href={href("rules", rule.id)}>{rule.name || <span class="muted">without a name</span>}</a>
                    {rule.labels?.severity && <span class="under">{rule.labels.severity}</span>}
                  </th>
                  <td data-label="State"><StateChip rule={rule} status={status} /></td>
                  <td data-label="Expression" class="wide"><FaultyExpression expr={rule.expr} reason={reasonToShow(status)} /></td>
                  <td data-label="For" class="num-left">{rule.for_duration && rule.for_duration !== "0s" ? rule.for_duration : "at once"}</td>
                  <td data-label="Evaluated">{status?.evaluated_at ? <Ago at={status.evaluated_at} now={now} /> : <span class="muted">not yet</span>}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </>
  );
}

export function reasonToShow(status: RuleStatus | undefined): string {
  return status && status.state !== "disabled" ? status.reason : "";
}

function place({ status }: { rule: Rule; status: RuleStatus | undefined }): number {
  return ORDER.indexOf(status?.state ?? "pending");
}

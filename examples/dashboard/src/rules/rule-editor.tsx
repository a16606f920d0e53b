/** One rule: what it says, beside what it would have done in the last day. */
import { useEffect, useRef, useState } from "preact/hooks";
import { canEdit, useApp, useChanges } from "../app/context.ts";
import { goTo, href } from "../app/location.ts";
import { refused, useLoad } from "../data/load.ts";
import type { Refused } from "../data/proxy.ts";
import type { Rule, RuleDraft, RuleStatus } from "../data/rows.ts";
import { PromqlField } from "../promql/field.tsx";
import { Empty, ErrorNote, sentence, Skeleton } from "../ui/states.tsx";
import { Ago } from "../ui/time.tsx";
import { PairsField } from "./pairs-field.tsx";
import { Preview } from "./preview.tsx";
import { type Field, faultsOf } from "./reason.ts";
import { reasonToShow } from "./rule-list.tsx";
import { StateChip } from "./states.tsx";
import { WhereItLands } from "./where-it-lands.tsx";

const NEW: RuleDraft = {
  name: "",
  expr: "hub_temperature_celsius > 30",
  for_duration: "1m",
  keep_firing_for: "0s",
  rule_group: "default",
  evaluation_interval: "1m",
  labels: { severity: "warning" },
  annotations: { summary: "hub {{ $labels.hub }} is at {{ $value }}" },
  enabled: true,
};

export function RuleEditor({ id }: { id: string }) {
  const { rows } = useApp();
  const isNew = id === "new";
  const changes = useChanges("alert_rule_status");
  const { data, error, at, reload } = useLoad(`rule ${rows.organisation} ${id}`, changes, async () => {
    if (isNew) return { rule: null, status: undefined };
    const [rules, statuses] = await Promise.all([rows.rules(), rows.ruleStatuses()]);
    return { rule: rules.find((rule) => rule.id === id), status: statuses.find((status) => status.rule_id === id) };
  });
  return (
    <>
      <p class="crumbs"><a href={href("rules")}>Rules</a></p>
      {error && <ErrorNote error={error} retry={reload} stale={data && at} />}
      {!data && !error && <><h1>Rule</h1><Skeleton shape="chart" /></>}
      {data && data.rule === undefined && <Empty title="There is no such rule" action={<a class="button" href={href("rules")}>All rules</a>}>It was deleted, or belongs to another organisation.</Empty>}
      {data && data.rule !== undefined && <Form rule={data.rule} status={data.status} reload={reload} />}
    </>
  );
}

interface FormProps {
  rule: Rule | null;
  status: RuleStatus | undefined;
  reload: () => void;
}

function Form({ rule, status, reload }: FormProps) {
  const app = useApp();
  const { rows, now } = app;
  const editable = canEdit(app);
  const [draft, setDraft] = useState<RuleDraft>(() => draftOf(rule));
  const [whole, setWhole] = useState(true);
  const [busy, setBusy] = useState(false);
  const [failure, setFailure] = useState<Refused | null>(null);
  /** When it was saved, by the row's own clock: an older status is about what was there before. */
  const [savedAt, setSavedAt] = useState<string | null>(null);
  const [asked, setAsked] = useState(false);
  const changed = JSON.stringify(draft) !== JSON.stringify(draftOf(rule));

  // Whoever has left, also for another organisation, is not taken to a rule of this one.
  const isHere = useRef(true);
  useEffect(() => () => void (isHere.current = false), []);

  useEffect(() => {
    // Leaving the page would lose what was written.
    if (!changed) return;
    const leaving = (event: BeforeUnloadEvent) => event.preventDefault();
    addEventListener("beforeunload", leaving);
    return () => removeEventListener("beforeunload", leaving);
  }, [changed]);

  const set = <K extends keyof RuleDraft>(name: K, value: RuleDraft[K]) => setDraft((old) => ({ ...old, [name]: value }));
  const attempt = async (work: () => Promise<void>) => {
    setBusy(true);
    setFailure(null);
    await work().catch((error: unknown) => setFailure(refused(error)));
    setBusy(false);
  };
  const save = () =>
    attempt(async () => {
      const saved = await rows.saveRule(draft, rule?.id);
      if (!isHere.current) return;
      setSavedAt(saved.updated_at);
      if (!rule) goTo("rules", saved.id);
      else reload();
    });
  const remove = () =>
    attempt(async () => {
      await rows.deleteRule(rule!.id);
      if (isHere.current) goTo("rules");
    });

  const current = status && (!savedAt || Date.parse(status.updated_at) >= Date.parse(savedAt)) ? status : undefined;
  const reason = reasonToShow(current);
  const faults = changed ? [] : faultsOf(reason, draft.expr);
  const marked = faults.find(({ at }) => at !== null);
  const mark = marked ? { at: marked.at!, words: marked.words } : null;
  const about = (field: Field | null) =>
    faults.filter((fault) => fault.field === field).map(({ words }) => <span key={words} class="field-error" role="status">{sentence(words)}</span>);
  return (
    <>
      <div class="title">
        <h1>{rule ? rule.name || "Rule without a name" : "New rule"}</h1>
        {rule && (changed ? <span class="muted">not saved</span> : <StateChip rule={rule} status={current} />)}
        {rule && current?.evaluated_at && !changed && <span class="muted">evaluated <Ago at={current.evaluated_at} now={now} /></span>}
      </div>
      <div class="editor">
        <form
          class="card stack"
          aria-label="Rule"
          onSubmit={(event) => {
            event.preventDefault();
            void save();
          }}
        >
          <fieldset disabled={!editable} class="stack">
            <label>Name <input value={draft.name} required maxLength={200} onInput={(event) => set("name", event.currentTarget.value)} />{about("name")}</label>
            <div class="field">
              <span class="label">Fires while this returns something</span>
              <PromqlField value={draft.expr} label="Expression" readOnly={!editable} mark={mark} onInput={(expr) => set("expr", expr)} onSubmit={() => editable && void save()} onCheck={setWhole} />
              {about("expr")}
            </div>
            <div class="columns">
              <label>For <input value={draft.for_duration} placeholder="5m" onInput={(event) => set("for_duration", event.currentTarget.value)} />{about("for_duration")}</label>
              <label>Keep firing for <input value={draft.keep_firing_for} placeholder="0s" onInput={(event) => set("keep_firing_for", event.currentTarget.value)} />{about("keep_firing_for")}</label>
              <label>Every <input value={draft.evaluation_interval} placeholder="1m" onInput={(event) => set("evaluation_interval", event.currentTarget.value)} />{about("evaluation_interval")}</label>
              <label>Group <input value={draft.rule_group} placeholder="default" onInput={(event) => set("rule_group", event.currentTarget.value)} />{about("rule_group")}</label>
            </div>
            <PairsField title="Labels" help="Notification routes match them." value={draft.labels} onInput={(labels) => set("labels", labels)} />
            {about("labels")}
            <PairsField title="Annotations" help="Texts of the notification. {{ $labels.hub }} and {{ $value }} are filled in." value={draft.annotations} onInput={(annotations) => set("annotations", annotations)} />
            {about("annotations")}
            <label class="check"><input type="checkbox" checked={draft.enabled} onInput={(event) => set("enabled", event.currentTarget.checked)} /> On</label>
            {about("enabled")}
            {about(null)}
          </fieldset>
          {failure && <ErrorNote error={failure} small />}
          {editable ? (
            <div class="actions">
              <button type="submit" class="primary" disabled={busy || (rule !== null && !changed)}>{rule ? "Save" : "Create rule"}</button>
              {rule && changed && <button type="button" disabled={busy} onClick={() => setDraft(draftOf(rule))}>Undo changes</button>}
              <span class="spring" />
              {rule && !asked && <button type="button" class="danger" disabled={busy} onClick={() => setAsked(true)}>Delete</button>}
              {rule && asked && (
                <>
                  <span>Alerts of this rule end. Delete it?</span>
                  <button type="button" class="danger" disabled={busy} onClick={remove}>Delete</button>
                  <button type="button" disabled={busy} onClick={() => setAsked(false)}>Keep</button>
                </>
              )}
            </div>
          ) : (
            <p class="muted">Your role, {app.organisation.role}, reads rules. Editors, admins and owners change them.</p>
          )}
        </form>
        <div class="stack">
          <Preview expr={draft.expr} forDuration={draft.for_duration} whole={whole} unsure={faults.some(({ field }) => field === "expr")} />
          <WhereItLands name={draft.name} labels={draft.labels} />
        </div>
      </div>
    </>
  );
}

/** What the row has, without what is not edited. Columns may be empty. */
function draftOf(rule: Rule | null): RuleDraft {
  if (!rule) return NEW;
  return {
    name: rule.name,
    expr: rule.expr,
    for_duration: rule.for_duration ?? "",
    keep_firing_for: rule.keep_firing_for ?? "",
    rule_group: rule.rule_group ?? "default",
    evaluation_interval: rule.evaluation_interval ?? "1m",
    labels: rule.labels ?? {},
    annotations: rule.annotations ?? {},
    enabled: rule.enabled,
  };
}

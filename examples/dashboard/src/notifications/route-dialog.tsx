/** A route that is new, or is changed, and which rules' alerts it would take. */
import { useState } from "preact/hooks";
import { useApp } from "../app/context.ts";
import { refused } from "../data/load.ts";
import { parseMatcher } from "../data/matchers.ts";
import type { Refused } from "../data/proxy.ts";
import type { Channel, Route, RouteDraft, Rule } from "../data/rows.ts";
import { durationSeconds } from "../rules/would-fire.ts";
import { Dialog } from "../ui/dialog.tsx";
import { ErrorNote } from "../ui/states.tsx";
import { landings } from "./reach.ts";

interface Props {
  /** Null for a new one. */
  route: Route | null;
  routes: Route[];
  channels: Channel[];
  rules: Rule[];
  onClose: () => void;
  onDone: () => void;
}

const DURATIONS = [
  ["group_wait", "First after", "30s"],
  ["group_interval", "Changes every", "5m"],
  ["repeat_interval", "Again every", "4h"],
] as const;

export function RouteDialog({ route, routes, channels, rules, onClose, onDone }: Props) {
  const { rows } = useApp();
  const [channel, setChannel] = useState(route?.channel_id ?? channels[0]!.id);
  const [text, setText] = useState((route?.matchers ?? ['severity="critical"']).join("\n"));
  const [groupBy, setGroupBy] = useState((route?.group_by ?? []).join(", "));
  const [times, setTimes] = useState<Record<string, string>>(() => Object.fromEntries(DURATIONS.map(([name]) => [name, route?.[name] ?? ""])));
  const [further, setFurther] = useState(route?.continue_matching ?? false);
  const [enabled, setEnabled] = useState(route?.enabled ?? true);
  const [failure, setFailure] = useState<Refused | null>(null);
  const [busy, setBusy] = useState(false);

  const matchers = text.split("\n").map((line) => line.trim()).filter(Boolean);
  const wrong = matchers.find((line) => !parseMatcher(line));
  const late = DURATIONS.find(([name]) => times[name] && durationSeconds(times[name]!) === null);
  const draft: RouteDraft = {
    channel_id: channel,
    position: route?.position ?? Math.max(0, ...routes.map(({ position }) => position)) + 1,
    matchers,
    group_by: groupBy.trim() ? groupBy.split(",").map((label) => label.trim()).filter(Boolean) : null,
    group_wait: times.group_wait || null,
    group_interval: times.group_interval || null,
    repeat_interval: times.repeat_interval || null,
    continue_matching: further,
    enabled,
  };
  const id = route?.id ?? "new";
  const then = { ...draft, id, mute_times: route?.mute_times ?? null, created_at: route?.created_at ?? "" };
  const order = route ? routes.map((other) => (other.id === id ? then : other)) : [...routes, then];
  const taken = wrong ? [] : rules.flatMap((rule) => {
    const found = rule.enabled ? landings({ ...rule.labels, alertname: rule.name }, order, channels, true).find((landing) => landing.route === id) : undefined;
    return found ? [found.certainty === "yes" ? rule.name : `${rule.name} (depending on its series)`] : [];
  });
  const submit = async (event: SubmitEvent) => {
    event.preventDefault();
    setBusy(true);
    setFailure(null);
    await rows.saveRoute(draft, route?.id).then(onDone, (error: unknown) => setFailure(refused(error)));
    setBusy(false);
  };
  return (
    <Dialog title={route ? "Change the route" : "New route"} onClose={onClose}>
      <form class="stack" onSubmit={submit}>
        <label>
          Alerts with all of these labels
          <textarea class="code" rows={3} value={text} placeholder={'severity="critical"\nhub=~"barn-.+"'} spellcheck={false} aria-invalid={Boolean(wrong)} onInput={(event) => setText(event.currentTarget.value)} />
          <span class="muted small-text">One matcher in a line: <code>=</code>, <code>!=</code>, <code>=~</code>, <code>!~</code>. None matches every alert.</span>
          {wrong && <span class="field-error" role="status">This is no matcher: <code>{wrong}</code></span>}
        </label>
        <label>
          go to
          <select value={channel} onInput={(event) => setChannel(event.currentTarget.value)}>
            {channels.map(({ id, name }) => <option key={id} value={id}>{name || "Channel without a name"}</option>)}
          </select>
        </label>
        <label>
          Grouped by
          <input value={groupBy} placeholder="alertname, hub" spellcheck={false} onInput={(event) => setGroupBy(event.currentTarget.value)} />
          <span class="muted small-text">Labels. Alerts that have the same values come in one notification.</span>
        </label>
        <div class="columns three">
          {DURATIONS.map(([name, label, usual]) => (
            <label key={name}>{label} <input value={times[name]} placeholder={usual} onInput={(event) => setTimes({ ...times, [name]: event.currentTarget.value.trim() })} /></label>
          ))}
        </div>
        {late && <p class="field-error" role="status">“{late[1]}” is not a duration such as {late[2]}.</p>}
        {Boolean(route?.mute_times?.length) && <p class="muted small-text">It has times in which it is muted. They stay as they are.</p>}
        <label class="check"><input type="checkbox" checked={further} onInput={(event) => setFurther(event.currentTarget.checked)} /> Later routes are tried, too</label>
        <label class="check"><input type="checkbox" checked={enabled} onInput={(event) => setEnabled(event.currentTarget.checked)} /> On</label>
        <p aria-live="polite" class="muted">{taken.length ? `Takes alerts of ${taken.join(", ")}.` : "Takes alerts of none of today's rules."}</p>
        {failure && <ErrorNote error={failure} small />}
        <div class="actions">
          <button type="submit" class="primary" disabled={busy || Boolean(wrong) || Boolean(late)}>{route ? "Save" : "Add route"}</button>
          <button type="button" onClick={onClose}>Cancel</button>
        </div>
      </form>
    </Dialog>
  );
}

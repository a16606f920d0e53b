/** A silence for an alert: for which alerts, until when and why. */
import { useState } from "preact/hooks";
import { useApp } from "../app/context.ts";
import type { Matcher } from "../data/alertmanager.ts";
import { refused } from "../data/load.ts";
import { allMatch, formatMatcher } from "../data/matchers.ts";
import type { Refused } from "../data/proxy.ts";
import type { AlertEvent } from "../data/rows.ts";
import { Dialog } from "../ui/dialog.tsx";
import { ErrorNote } from "../ui/states.tsx";
import { absolute } from "../ui/units.ts";

const LENGTHS: [string, number][] = [
  ["1 hour", 1],
  ["4 hours", 4],
  ["1 day", 24],
  ["1 week", 168],
];

interface Props {
  event: AlertEvent;
  /** Everything that fires, to say what else the silence covers. */
  firing: AlertEvent[];
  onClose: () => void;
  onDone: () => void;
}

export function SilenceDialog({ event, firing, onClose, onDone }: Props) {
  const { alertmanager, now } = useApp();
  const labels = Object.entries(event.labels).filter(([name]) => name !== "__name__");
  // This alert of this hub. Fewer labels cover more alerts.
  const [chosen, setChosen] = useState<ReadonlySet<string>>(new Set(labels.map(([name]) => name).filter((name) => name === "alertname" || name === "hub")));
  const [hours, setHours] = useState(4);
  const [reason, setReason] = useState("");
  const [busy, setBusy] = useState(false);
  const [failure, setFailure] = useState<Refused | null>(null);
  const matchers: Matcher[] = labels.filter(([name]) => chosen.has(name)).map(([name, value]) => ({ name, value, isRegex: false, isEqual: true }));
  const covered = firing.filter((other) => allMatch(matchers, other.labels)).length;
  const end = new Date(now + hours * 3_600_000);
  const toggle = (name: string) => {
    const next = new Set(chosen);
    if (!next.delete(name)) next.add(name);
    setChosen(next);
  };
  const submit = async (submitted: SubmitEvent) => {
    submitted.preventDefault();
    setBusy(true);
    setFailure(null);
    await alertmanager
      .silence(matchers, new Date(Date.now() + hours * 3_600_000), reason.trim())
      .then(onDone, (error: unknown) => setFailure(refused(error)));
    setBusy(false);
  };
  return (
    <Dialog title="Silence alerts" onClose={onClose}>
      <form class="stack" onSubmit={submit}>
        <fieldset>
          <legend>Alerts with all of these labels</legend>
          {labels.map(([name, value]) => (
            <label key={name} class="check">
              <input type="checkbox" checked={chosen.has(name)} onInput={() => toggle(name)} />
              <code>{formatMatcher({ name, value, isRegex: false, isEqual: true })}</code>
            </label>
          ))}
          <p class="muted small-text">{matchers.length ? `This covers ${covered === 1 ? "1 alert that fires" : `${covered} alerts that fire`} now, and later ones.` : "Choose at least one."}</p>
        </fieldset>
        <fieldset>
          <legend>For</legend>
          <div class="segments">
            {LENGTHS.map(([name, length]) => (
              <button key={name} type="button" aria-pressed={hours === length} onClick={() => setHours(length)}>{name}</button>
            ))}
          </div>
          <p class="muted small-text">until {absolute(end.getTime())}</p>
        </fieldset>
        <label>
          Reason
          <input required maxLength={500} placeholder="sensor is being replaced" value={reason} onInput={(input) => setReason(input.currentTarget.value)} />
        </label>
        {failure && <ErrorNote error={failure} small />}
        <div class="actions">
          <button type="submit" class="primary" disabled={busy || !matchers.length}>Silence</button>
          <button type="button" onClick={onClose}>Cancel</button>
        </div>
      </form>
    </Dialog>
  );
}

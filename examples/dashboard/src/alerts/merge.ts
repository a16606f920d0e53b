/**
 * One list of what fires, from three sources: the rows (what began and ended), the Alertmanager (groups,
 * receivers, silences) and the ruler (values). The rows are the list; the others may be missing.
 */
import type { AlertGroup, ManagedAlert, Silence } from "../data/alertmanager.ts";
import { allMatch } from "../data/matchers.ts";
import { identity, type Labels, type RulerAlert } from "../data/prometheus.ts";
import type { AlertEvent } from "../data/rows.ts";

export interface Firing {
  event: AlertEvent;
  managed: ManagedAlert | undefined;
  /** The silence that covers it: as the Alertmanager says, or as plain matchers tell before it does. */
  silence: Silence | undefined;
  value: number | null;
}

export interface Group {
  id: string;
  /** What the alerts of the group have in common, as its route groups them. */
  labels: Labels;
  /** Names of receivers: the IDs of channels, or `nobody`. */
  receivers: string[];
  /** False for what the Alertmanager does not have (yet), or has not been asked about. */
  managed: boolean;
  alerts: Firing[];
}

/** `groups` is undefined as long as the Alertmanager has not answered: then nothing is known of what it has. */
export function groupsOf(events: AlertEvent[], groups: AlertGroup[] | undefined, silences: Silence[], ruler: RulerAlert[]): Group[] {
  const firing = events.filter(({ state }) => state === "firing");
  const active = silences.filter(({ status }) => status.state === "active");
  const values = new Map(ruler.map((alert) => [identity(alert.labels), Number(alert.value)]));
  const found = (event: AlertEvent, managed?: ManagedAlert): Firing => ({
    event,
    managed,
    silence: active.find(({ id, matchers }) => managed?.status.silencedBy.includes(id) || allMatch(matchers, event.labels)),
    value: values.get(identity(event.labels)) ?? null,
  });
  const byFingerprint = new Map(firing.map((event) => [event.fingerprint, event]));
  const merged = new Map<string, Group>();
  const placed = new Set<string>();
  for (const group of groups ?? []) {
    const alerts = group.alerts.flatMap((managed) => {
      const event = byFingerprint.get(managed.fingerprint);
      return event ? [found(event, managed)] : [];
    });
    if (!alerts.length) continue;
    for (const { event } of alerts) placed.add(event.fingerprint);
    // A group that goes to two channels is one group for whoever looks at alerts.
    const id = `${identity(group.labels)} ${alerts.map(({ event }) => event.id).sort().join()}`;
    const known = merged.get(id);
    if (known) known.receivers.push(group.receiver.name);
    else merged.set(id, { id, labels: group.labels, receivers: [group.receiver.name], managed: true, alerts });
  }
  const rest = firing.filter(({ fingerprint, kind }) => !placed.has(fingerprint) && kind !== "device_silent");
  const silent = firing.filter(({ kind }) => kind === "device_silent");
  const result = [...merged.values()];
  if (rest.length) result.push({ id: groups ? "rest" : "unknown", labels: {}, receivers: [], managed: false, alerts: rest.map((event) => found(event)) });
  if (silent.length) result.push({ id: "silent", labels: {}, receivers: [], managed: false, alerts: silent.map((event) => found(event)) });
  for (const { alerts } of result) alerts.sort((a, b) => Date.parse(b.event.started_at) - Date.parse(a.event.started_at));
  // Loud ones first, then the newest.
  return result.sort((a, b) => Number(isQuiet(a)) - Number(isQuiet(b)) || newest(b) - newest(a));
}

function isQuiet({ alerts }: Group): boolean {
  return alerts.every(({ silence }) => silence);
}

function newest({ alerts }: Group): number {
  return Math.max(...alerts.map(({ event }) => Date.parse(event.started_at)));
}

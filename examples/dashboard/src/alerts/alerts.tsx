import { useMemo, useState } from "preact/hooks";
import { can, useApp, useChanges } from "../app/context.ts";
import { href } from "../app/location.ts";
import type { ManagedAlert, Silence } from "../data/alertmanager.ts";
import { refused, useLoad } from "../data/load.ts";
import { formatMatcher } from "../data/matchers.ts";
import type { Refused } from "../data/proxy.ts";
import type { AlertEvent, Channel, Rule } from "../data/rows.ts";
import { Chip } from "../ui/chip.tsx";
import { icons } from "../ui/icons.tsx";
import { Empty, ErrorNote, Skeleton } from "../ui/states.tsx";
import { Ago } from "../ui/time.tsx";
import { absolute, clock, duration, number, relative } from "../ui/units.ts";
import { ExpressionSparkline } from "./expression-sparkline.tsx";
import { type Firing, type Group, groupsOf } from "./merge.ts";
import { SilenceDialog } from "./silence-dialog.tsx";

export function Alerts() {
  const { rows, alertmanager, prometheus, now } = useApp();
  const organisation = rows.organisation;
  const changes = useChanges("alert_event");
  const events = useLoad(`events ${organisation}`, changes, () => rows.events());
  // The Alertmanager and the ruler announce nothing: they are asked at each tick, and when a row changed.
  const version = `${now} ${changes}`;
  const groups = useLoad(`groups ${organisation}`, version, (signal) => alertmanager.groups(signal));
  const silences = useLoad(`silences ${organisation}`, version, (signal) => alertmanager.silences(signal));
  const ruler = useLoad(`ruler ${organisation}`, version, (signal) => prometheus.alerts(signal));
  const context = useLoad(`names ${organisation}`, 0, async () => {
    const [channels, rules] = await Promise.all([rows.channels(), rows.rules()]);
    return { channels, rules };
  });
  const [silencing, setSilencing] = useState<AlertEvent | null>(null);
  const merged = useMemo(
    () => (events.data ? groupsOf(events.data, groups.data, silences.data ?? [], ruler.data ?? []) : undefined),
    [events.data, groups.data, silences.data, ruler.data],
  );
  // What the list can do without. One says it for all: they come from the same place.
  const unread = [groups, silences, ruler].find(({ error }) => error);
  const ended = (events.data ?? []).filter(({ state }) => state === "resolved");
  return (
    <>
      <h1>Alerts</h1>
      {events.error && <ErrorNote error={events.error} retry={events.reload} stale={events.data && events.at} />}
      {unread && <ErrorNote error={unread.error!} retry={unread.reload} small stale={unread.data && unread.at} />}
      {!(events.error && !events.data) && <section aria-label="Firing">
        <h2>Firing {merged && <span class="muted">{merged.reduce((sum, { alerts }) => sum + alerts.length, 0)}</span>}</h2>
        {!merged && !events.error && <Skeleton shape="cards" rows={2} />}
        {merged && !merged.length && <Empty title="Nothing fires">An alert is here from its first moment, also before it notifies anybody.</Empty>}
        {merged?.map((group) => (
          <GroupCard key={group.id} group={group} channels={context.data?.channels ?? []} rules={context.data?.rules ?? []} onSilence={setSilencing} />
        ))}
        {merged?.some(({ managed }) => managed) && (
          <p class="muted small-text">The Alertmanager tells where a group goes, not whether a notification has arrived. To see that a channel works, <a href={href("notifications")}>send a test</a>.</p>
        )}
      </section>}
      <Silences silences={silences.data} reload={silences.reload} />
      {!(events.error && !events.data) && <History events={ended} rules={context.data?.rules ?? []} loading={!events.data} />}
      {silencing && (
        <SilenceDialog
          event={silencing}
          firing={(events.data ?? []).filter(({ state }) => state === "firing")}
          onClose={() => setSilencing(null)}
          onDone={() => (setSilencing(null), silences.reload(), groups.reload())}
        />
      )}
    </>
  );
}

interface CardProps {
  group: Group;
  channels: Channel[];
  rules: Rule[];
  onSilence: (event: AlertEvent) => void;
}

function GroupCard({ group, channels, rules, onSilence }: CardProps) {
  const labels = Object.entries(group.labels).map(([name, value]) => `${name}="${value}"`).join(" ");
  return (
    <div class="card group" data-group={labels}>
      <header>
        <span>
          {labels ? <><span class="muted">Grouped by</span> <code>{labels}</code></> : <span class="muted">{GROUP_WORDS[group.id] ?? "One group"}</span>}
        </span>
        <span class="muted">{group.managed && receiverText(group.receivers, channels)}</span>
      </header>
      {group.alerts.map((alert) => (
        <AlertRow key={alert.event.id} alert={alert} rule={rules.find(({ id }) => id === alert.event.rule_id)} isKnown={group.id !== "unknown"} onSilence={onSilence} />
      ))}
    </div>
  );
}

const GROUP_WORDS: Record<string, string> = {
  rest: "Not grouped yet: the Alertmanager does not have them.",
  unknown: "The Alertmanager has not answered: how they are grouped and where they go is not known.",
  silent: "Devices whose keys are not used. No notification is sent for them.",
};

/** A receiver is named by its channel's ID. */
function receiverText(receivers: string[], channels: Channel[]): string {
  const names = receivers.filter((name) => name !== "nobody").map((id) => channels.find((channel) => channel.id === id)?.name || id);
  return names.length ? `goes to ${names.join(", ")}` : "goes to nobody";
}

function AlertRow({ alert: { event, managed, silence, value }, rule, isKnown, onSilence }: { alert: Firing; rule: Rule | undefined; isKnown: boolean; onSilence: (event: AlertEvent) => void }) {
  const app = useApp();
  const { alertname = event.kind === "device_silent" ? "Silent device" : "alert", device, hub = device, severity, ...rest } = event.labels;
  const more = Object.entries(rest).filter(([name]) => name !== "__name__");
  return (
    <article class="alert" aria-label={`${alertname} ${hub ?? ""}`} data-alert={alertname} data-hub={hub}>
      <div class="alert-what">
        <p>
          {silence ? <Chip meaning="neutral" icon={icons.BellOff}>silenced</Chip> : <Chip meaning="critical">firing</Chip>}{" "}
          <span class="strong">{rule ? <a href={href("rules", rule.id)}>{alertname}</a> : alertname}</span>{" "}
          {hub && <a href={href("hubs", hub)}>{hub}</a>} {severity && <span class="muted">{severity}</span>}
        </p>
        {event.annotations.summary && <p>{event.annotations.summary}</p>}
        {more.length > 0 && <p class="muted small-text"><code>{more.map(([name, text]) => `${name}="${text}"`).join(" ")}</code></p>}
        {silence && <p class="muted small-text">for another <time dateTime={silence.endsAt} title={`until ${absolute(Date.parse(silence.endsAt))}`}>{duration((Date.parse(silence.endsAt) - app.now) / 1000)}</time>, by {silence.createdBy}: {silence.comment}</p>}
      </div>
      <div class="alert-value">
        <ExpressionSparkline event={event} rule={rule} />
        <span class="strong">{value === null ? "" : number(value)}</span>
      </div>
      <div class="alert-since">
        <p>for <time dateTime={event.started_at} title={`since ${absolute(Date.parse(event.started_at))}`}>{duration((app.now - Date.parse(event.started_at)) / 1000)}</time></p>
        <p class="muted small-text">recorded <time dateTime={event.created_at} title={absolute(Date.parse(event.created_at))}>{clock(Date.parse(event.created_at))}</time></p>
        {event.kind === "alert" && <p class="muted small-text">{whereIsIt(managed, silence !== undefined, isKnown)}</p>}
      </div>
      {!silence && can(app, "alerts:write") && event.kind === "alert" && (
        <button type="button" class="small" onClick={() => onSilence(event)}>Silence</button>
      )}
    </article>
  );
}

/** What the Alertmanager says of it. That a notification was sent or has arrived, it tells nobody. */
function whereIsIt(managed: ManagedAlert | undefined, silenced: boolean, isKnown: boolean): string {
  if (!managed) return isKnown ? "not at the Alertmanager yet" : "not known if it is at the Alertmanager";
  const { silencedBy, inhibitedBy, mutedBy } = managed.status;
  if (silenced || silencedBy.length) return "held back by a silence";
  if (mutedBy?.length) return "held back: its route is muted now";
  if (inhibitedBy.length) return "held back by another alert";
  return "at the Alertmanager";
}

function Silences({ silences, reload }: { silences: Silence[] | undefined; reload: () => void }) {
  const app = useApp();
  const [failure, setFailure] = useState<Refused | null>(null);
  const [ending, setEnding] = useState<string | null>(null);
  const active = (silences ?? []).filter(({ status }) => status.state !== "expired");
  if (!active.length) return null;
  const end = async (id: string) => {
    setEnding(id);
    setFailure(null);
    await app.alertmanager.endSilence(id).then(reload, (error: unknown) => setFailure(refused(error)));
    setEnding(null);
  };
  return (
    <section aria-label="Silences">
      <h2>Silences <span class="muted">{active.length}</span></h2>
      {failure && <ErrorNote error={failure} small />}
      <div class="card table-card">
        <table class="rows">
          <thead><tr><th scope="col">Matches</th><th scope="col">Reason</th><th scope="col">By</th><th scope="col">Ends</th><th scope="col"><span class="hidden">Action</span></th></tr></thead>
          <tbody>
            {active.map(({ id, matchers, comment, createdBy, endsAt }) => (
              <tr key={id}>
                <th scope="row"><code>{matchers.map(formatMatcher).join(" ")}</code></th>
                <td data-label="Reason">{comment}</td>
                <td data-label="By">{createdBy}</td>
                <td data-label="Ends"><time dateTime={endsAt} title={absolute(Date.parse(endsAt))}>{relative(Date.parse(endsAt), app.now)}</time></td>
                <td class="num">{can(app, "alerts:write") && <button type="button" class="small" disabled={ending === id} onClick={() => end(id)}>End now</button>}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}

const BECAUSE = { resolved: "resolved", expired: "not reported any more", reported: "reports again", withdrawn: "not watched any more" };

function History({ events, rules, loading }: { events: AlertEvent[]; rules: Rule[]; loading: boolean }) {
  const { now } = useApp();
  return (
    <section aria-label="Ended">
      <h2>Ended</h2>
      {loading && <Skeleton shape="table" rows={3} />}
      {!loading && !events.length && <p class="muted">No alert has ended in the last 30 days.</p>}
      {events.length > 0 && (
        <div class="card table-card">
          <table class="rows">
            <thead><tr><th scope="col">Alert</th><th scope="col">Hub</th><th scope="col">Ended</th><th scope="col">Lasted</th><th scope="col">Because</th></tr></thead>
            <tbody>
              {events.map((event) => {
                const rule = rules.find(({ id }) => id === event.rule_id);
                const name = event.kind === "device_silent" ? "Silent device" : (event.labels.alertname ?? "alert");
                const end = Date.parse(event.ended_at!);
                return (
                  <tr key={event.id}>
                    <th scope="row">{rule ? <a href={href("rules", rule.id)}>{name}</a> : name}</th>
                    <td data-label="Hub">{event.labels.hub ?? event.labels.device ?? ""}</td>
                    <td data-label="Ended"><Ago at={end} now={now} /></td>
                    <td data-label="Lasted">{duration((end - Date.parse(event.started_at)) / 1000)}</td>
                    <td data-label="Because">{event.ended_because ? BECAUSE[event.ended_because] : ""}</td>
                  </tr>
                );
              })}
            </tbody>
          </table>
        </div>
      )}
    </section>
  );
}

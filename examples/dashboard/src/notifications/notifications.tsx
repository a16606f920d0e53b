import { useState } from "preact/hooks";
import { can, canEdit, useApp, useChanges } from "../app/context.ts";
import { href } from "../app/location.ts";
import { refused, useLoad } from "../data/load.ts";
import type { Refused } from "../data/proxy.ts";
import type { Channel, ChannelStatus, Route, Rule } from "../data/rows.ts";
import { Chip, type Meaning } from "../ui/chip.tsx";
import { Icon, icons } from "../ui/icons.tsx";
import { Empty, ErrorNote, sentence, Skeleton } from "../ui/states.tsx";
import { duration } from "../ui/units.ts";
import { AddChannel } from "./add-channel.tsx";
import { kindTitle } from "./kinds.ts";
import { type Landing, landings } from "./reach.ts";

export function Notifications() {
  const app = useApp();
  const { rows } = app;
  const { data, error, at, reload } = useLoad(`notifications ${rows.organisation}`, useChanges("notification_channel_status"), async () => {
    const [channels, statuses, routes, rules] = await Promise.all([rows.channels(), rows.channelStatuses(), rows.routes(), rows.rules()]);
    return { channels, statuses: new Map(statuses.map((status) => [status.channel_id, status])), routes, rules };
  });
  const [adding, setAdding] = useState(false);
  const add = canEdit(app) && <button type="button" class="primary" onClick={() => setAdding(true)}><Icon of={icons.Plus} /> New channel</button>;
  return (
    <>
      <div class="title"><h1>Notifications</h1><span class="spring" />{data && data.channels.length > 0 && add}</div>
      {error && <ErrorNote error={error} retry={reload} stale={data && at} />}
      <section aria-label="Channels">
        <h2>Channels</h2>
        {!data && !error && <Skeleton shape="cards" rows={2} />}
        {data && !data.channels.length && (
          <Empty title="Nobody is notified yet" action={add}>A channel is where notifications go, such as an address, a Slack channel or a webhook.</Empty>
        )}
        <div class="channels">
          {data?.channels.map((channel) => <ChannelCard key={channel.id} channel={channel} status={data.statuses.get(channel.id)} />)}
        </div>
      </section>
      {data && data.channels.length > 0 && <Routes {...data} />}
      {data && data.channels.length > 0 && data.rules.length > 0 && <Landings {...data} />}
      {adding && <AddChannel first={!data?.channels.length} onClose={() => setAdding(false)} onDone={() => (setAdding(false), reload())} />}
    </>
  );
}

const MEANING: Record<string, Meaning> = { live: "ok", pending: "neutral", disabled: "neutral", over_limit: "warning", invalid: "critical", error: "critical" };

interface TestReport {
  outcome: string;
  reason: string;
  took_ms: number;
}

function ChannelCard({ channel, status }: { channel: Channel; status: ChannelStatus | undefined }) {
  const app = useApp();
  const [busy, setBusy] = useState(false);
  const [report, setReport] = useState<TestReport | null>(null);
  const [failure, setFailure] = useState<Refused | null>(null);
  const state = status?.state ?? "pending";
  const test = async () => {
    setBusy(true);
    setReport(null);
    setFailure(null);
    const organisation = app.organisation.id;
    const path = `/admin/organisations/${encodeURIComponent(organisation)}/channels/${channel.id}/test`;
    await app.proxy.request<TestReport>(path, { organisation, method: "POST" }).then(setReport, (error: unknown) => setFailure(refused(error)));
    setBusy(false);
  };
  return (
    <article class="card channel" aria-label={channel.name} data-channel={channel.name}>
      <header>
        <h3>{channel.name || "Channel without a name"}</h3>
        <Chip meaning={MEANING[state] ?? "neutral"} {...(state === "pending" ? { icon: icons.Hourglass } : {})}>{state === "disabled" ? "off" : state.replace("_", " ")}</Chip>
      </header>
      <p class="muted">{kindTitle(channel.kind)}{channel.is_default && ", gets what no route takes"}</p>
      {status?.reason && state !== "disabled" && <p class="reason">{sentence(status.reason)}</p>}
      {report && <p role="status" class="result"><Chip meaning={report.outcome === "delivered" ? "ok" : "warning"}>{report.outcome.replaceAll("_", " ")}</Chip> {sentence(report.reason)} <span class="muted">{duration(report.took_ms / 1000)}</span></p>}
      {failure && <ErrorNote error={failure} small />}
      {can(app, "admin") ? (
        <button type="button" class="small" disabled={busy || state !== "live"} title={state === "live" ? "" : "only a channel that is live can be tested"} onClick={test}>
          <Icon of={icons.Send} /> {busy ? "Sending, up to a minute" : "Send a test"}
        </button>
      ) : (
        <p class="muted small-text">Owners and admins can send a test.</p>
      )}
    </article>
  );
}

function Routes({ routes, channels }: { routes: Route[]; channels: Channel[] }) {
  const name = (id: string) => channels.find((channel) => channel.id === id)?.name ?? "a channel that is gone";
  const defaults = channels.filter((channel) => channel.is_default && channel.enabled);
  return (
    <section aria-label="Routes">
      <h2>Routes, in the order they are tried</h2>
      <ol class="card routes">
        {routes.map((route) => (
          <li key={route.id} class={route.enabled ? "" : "off"}>
            <code>{route.matchers?.length ? route.matchers.join(" ") : "every alert"}</code>
            <span>goes to <span class="strong">{name(route.channel_id)}</span></span>
            <span class="muted">
              {[!route.enabled && "off", route.continue_matching && "then on to the next", route.group_by && `grouped by ${route.group_by.join(", ")}`, route.repeat_interval && `again every ${route.repeat_interval}`].filter(Boolean).join(", ")}
            </span>
          </li>
        ))}
        <li>
          <span>everything else</span>
          {defaults.length ? <span>goes to <span class="strong">{defaults.map((channel) => channel.name).join(", ")}</span></span> : <Chip meaning="warning" icon={icons.BellOff}>notifies nobody</Chip>}
        </li>
      </ol>
    </section>
  );
}

function Landings({ rules, routes, channels }: { rules: Rule[]; routes: Route[]; channels: Channel[] }) {
  const names = new Map(channels.map((channel) => [channel.id, channel.name]));
  return (
    <section aria-label="Which rule lands where">
      <h2>Which rule lands where</h2>
      <div class="card table-card">
        <table class="rows">
          <thead><tr><th scope="col">Rule</th><th scope="col">Labels</th><th scope="col">Channels</th></tr></thead>
          <tbody>
            {rules.filter(({ enabled }) => enabled).map((rule) => {
              const found = landings({ ...rule.labels, alertname: rule.name }, routes, channels, true);
              return (
                <tr key={rule.id}>
                  <th scope="row"><a href={href("rules", rule.id)}>{rule.name}</a></th>
                  <td data-label="Labels"><code>{Object.entries(rule.labels ?? {}).map(([name, value]) => `${name}="${value}"`).join(" ")}</code></td>
                  <td data-label="Channels">{found.length ? found.map((landing) => text(landing, names)).join(", ") : <Chip meaning="warning" icon={icons.BellOff}>nobody</Chip>}</td>
                </tr>
              );
            })}
          </tbody>
        </table>
      </div>
    </section>
  );
}

function text({ channel, certainty }: Landing, names: Map<string, string>): string {
  const name = names.get(channel) ?? channel;
  return certainty === "yes" ? name : `${name}, depending on the labels of the series`;
}

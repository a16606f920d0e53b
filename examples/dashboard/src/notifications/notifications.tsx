import { useState } from "preact/hooks";
import { canEdit, useApp, useChanges } from "../app/context.ts";
import { href } from "../app/location.ts";
import { useLoad } from "../data/load.ts";
import type { Channel, Route, Rule } from "../data/rows.ts";
import { Chip } from "../ui/chip.tsx";
import { Confirm } from "../ui/confirm.tsx";
import { Icon, icons } from "../ui/icons.tsx";
import { Empty, ErrorNote, Skeleton } from "../ui/states.tsx";
import { ChannelCard } from "./channel-card.tsx";
import { ChannelDialog } from "./channel-dialog.tsx";
import { type Landing, landings } from "./reach.ts";
import { RouteDialog } from "./route-dialog.tsx";
import { RouteList } from "./route-list.tsx";

type Open = { what: "channel"; of: Channel | null } | { what: "route"; of: Route | null } | { what: "delete channel"; of: Channel } | { what: "delete route"; of: Route };

export function Notifications() {
  const app = useApp();
  const { rows } = app;
  const changes = useChanges("notification_channel_status", "notification_route_status");
  const { data, error, at, reload } = useLoad(`notifications ${rows.organisation}`, changes, async () => {
    const [channels, statuses, routes, routeStatuses, rules] = await Promise.all([rows.channels(), rows.channelStatuses(), rows.routes(), rows.routeStatuses(), rows.rules()]);
    return {
      channels,
      statuses: new Map(statuses.map((status) => [status.channel_id, status])),
      routes,
      routeStatuses: new Map(routeStatuses.map((status) => [status.route_id, status])),
      rules,
    };
  });
  const [open, setOpen] = useState<Open | null>(null);
  const close = () => setOpen(null);
  const done = () => (setOpen(null), reload());
  const add = canEdit(app) && <button type="button" class="primary" onClick={() => setOpen({ what: "channel", of: null })}><Icon of={icons.Plus} /> New channel</button>;
  return (
    <>
      <div class="title"><h1>Notifications</h1><span class="spring" />{data && data.channels.length > 0 && add}</div>
      {error && <ErrorNote error={error} retry={reload} stale={data && at} />}
      {(data || !error) && <section aria-label="Channels">
        <h2>Channels</h2>
        {!data && !error && <Skeleton shape="cards" rows={2} />}
        {data && !data.channels.length && (
          <Empty title="Nobody is notified yet" action={add}>A channel is where notifications go, such as an address, a Slack channel or a webhook.</Empty>
        )}
        <div class="channels">
          {data?.channels.map((channel) => (
            <ChannelCard
              key={channel.id} channel={channel} status={data.statuses.get(channel.id)}
              onEdit={() => setOpen({ what: "channel", of: channel })} onDelete={() => setOpen({ what: "delete channel", of: channel })}
            />
          ))}
        </div>
      </section>}
      {data && data.channels.length > 0 && (
        <RouteList {...data} reload={reload} onEdit={(of) => setOpen({ what: "route", of })} onDelete={(of) => setOpen({ what: "delete route", of })} />
      )}
      {data && data.channels.length > 0 && data.rules.length > 0 && <Landings {...data} />}
      {open?.what === "channel" && <ChannelDialog channel={open.of} first={!data?.channels.length} onClose={close} onDone={done} />}
      {data && open?.what === "route" && <RouteDialog {...data} route={open.of} onClose={close} onDone={done} />}
      {data && open?.what === "delete channel" && (
        <Confirm title={`Delete ${open.of.name || "the channel"}?`} action="Delete the channel" work={() => rows.deleteChannel(open.of.id)} onClose={close} onDone={done}>
          <p>{whatGoes(data, { channel: open.of.id })}</p>
        </Confirm>
      )}
      {data && open?.what === "delete route" && (
        <Confirm title="Delete the route?" action="Delete the route" work={() => rows.deleteRoute(open.of.id)} onClose={close} onDone={done}>
          <p>{whatGoes(data, { route: open.of.id })}</p>
        </Confirm>
      )}
    </>
  );
}

const ORDER = ["nobody", "perhaps", "somebody"] as const;
type Surety = (typeof ORDER)[number];

/** Whom a rule's alerts notify. What a route perhaps takes, a default channel gets otherwise. */
function surety(found: Landing[]): Surety {
  if (found.some(({ certainty, route }) => certainty === "yes" || route === null)) return "somebody";
  return found.length ? "perhaps" : "nobody";
}

interface Data {
  channels: Channel[];
  routes: Route[];
  rules: Rule[];
}

/** What a deletion takes with it, and whose alerts notify nobody from then on. */
export function whatGoes({ channels, routes, rules }: Data, gone: { channel?: string; route?: string }): string {
  const left = routes.filter(({ id, channel_id }) => id !== gone.route && channel_id !== gone.channel);
  const leftChannels = channels.filter(({ id }) => id !== gone.channel);
  const lost = gone.channel ? routes.length - left.length : 0;
  const lose = rules.filter(({ enabled }) => enabled).map(({ name, labels }) => {
    const all = { ...labels, alertname: name };
    const [before, after] = [surety(landings(all, routes, channels, true)), surety(landings(all, left, leftChannels, true))];
    return { name, after, loses: ORDER.indexOf(after) < ORDER.indexOf(before) };
  });
  const names = (after: Surety) => lose.filter((one) => one.loses && one.after === after).map(({ name }) => name).join(", ");
  const [nobody, perhaps] = [names("nobody"), names("perhaps")];
  const said = [
    lost > 0 && `${lost === 1 ? "One route goes" : `${lost} routes go`} with it.`,
    nobody && `Alerts of ${nobody} will notify nobody.`,
    perhaps && `Alerts of ${perhaps} may notify nobody, depending on the labels of their series.`,
    !nobody && !perhaps && "Every rule that notifies somebody now still does.",
  ];
  return said.filter(Boolean).join(" ");
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
  return certainty === "yes" ? name : `${name}, depending on the labels of the series or a pattern of a route`;
}

import { useApp, useChanges } from "../app/context.ts";
import { href } from "../app/location.ts";
import { useLoad } from "../data/load.ts";
import type { Labels } from "../data/prometheus.ts";
import { landings } from "../notifications/reach.ts";
import { Chip } from "../ui/chip.tsx";
import { icons } from "../ui/icons.tsx";

/** The channels that alerts of a rule reach, as far as its own labels tell. */
export function WhereItLands({ name, labels }: { name: string; labels: Labels }) {
  const { rows } = useApp();
  const { data } = useLoad(`routing ${rows.organisation}`, useChanges("notification_channel_status"), async () => {
    const [channels, routes] = await Promise.all([rows.channels(), rows.routes()]);
    return { channels, routes };
  });
  if (!data) return null;
  const found = landings({ ...labels, alertname: name }, data.routes, data.channels, true);
  const names = new Map(data.channels.map((channel) => [channel.id, channel.name]));
  return (
    <section class="card lands" aria-label="Notifies">
      <h2>Notifies</h2>
      {found.length ? (
        <ul class="plain-list">
          {found.map(({ channel, certainty, route }) => (
            <li key={`${channel} ${route}`}>
              <span class="strong">{names.get(channel)}</span>{" "}
              <span class="muted">{route ? "by a route" : "as a default channel"}{certainty === "maybe" && ", depending on the labels of the series or a pattern of a route"}</span>
            </li>
          ))}
        </ul>
      ) : (
        <p><Chip meaning="warning" icon={icons.BellOff}>notifies nobody</Chip> <a href={href("notifications")}>Choose a default channel</a></p>
      )}
    </section>
  );
}

import { useMemo } from "preact/hooks";
import { useApp, useChanges } from "../app/context.ts";
import { href } from "../app/location.ts";
import { pensOf } from "../charts/colours.ts";
import { Panel } from "../charts/panel.tsx";
import { useLoad } from "../data/load.ts";
import { ofHub, PANELS } from "../overview/panels.ts";
import { Chip } from "../ui/chip.tsx";
import { Empty, ErrorNote, Skeleton } from "../ui/states.tsx";
import { Ago } from "../ui/time.tsx";
import { percent } from "./hub-list.tsx";
import { HubState } from "./hub-state.tsx";
import { uptime } from "./hubs.ts";
import { KeyState } from "./key-state.tsx";
import { Strip } from "./strip.tsx";
import { useHubs } from "./use-hubs.ts";

export function HubPage({ name }: { name: string }) {
  const { rows, now } = useApp();
  const hubs = useHubs();
  const rules = useLoad(`rules ${rows.organisation}`, useChanges("alert_rule_status"), rows.rules);
  const events = useLoad(`events ${rows.organisation}`, useChanges("alert_event"), () => rows.events());
  const pens = useMemo(() => pensOf(rows.organisation, [...(hubs.data ?? []).map((hub) => hub.name), name]), [hubs.data, name]);
  const hub = hubs.data?.find((hub) => hub.name === name);
  const firing = (events.data ?? []).filter(({ state, labels }) => state === "firing" && labels.hub === name);
  return (
    <>
      <p class="crumbs"><a href={href("hubs")}>Hubs</a></p>
      <div class="title">
        <h1>{name}</h1>
        {hub && <HubState of={hub} />}
        {firing.map(({ id, labels }) => <a key={id} href={href("alerts")}><Chip meaning="critical">{labels.alertname ?? "alert"}</Chip></a>)}
      </div>
      {hubs.error && <ErrorNote error={hubs.error} retry={hubs.reload} stale={hub && hubs.at} />}
      {!hubs.data && !hubs.error && <div class="card fact"><Skeleton shape="fact" /></div>}
      {hubs.data && !hub && <Empty title={`${name} has sent nothing in the last day`}>It may have another name, or belong to another organisation.</Empty>}
      {hub && (
        <section class="card hub-facts">
          <dl class="pairs">
            <div><dt>Last seen</dt><dd>{hub.lastSeen === null ? "not in the last day" : <Ago at={hub.lastSeen * 1000} now={now} />}</dd></div>
            <div><dt>Uptime, 24 h</dt><dd>{percent(uptime(hub.strip))}</dd></div>
            <div><dt>Key</dt><dd><KeyState of={hub.key} /></dd></div>
            {hub.key?.last_used_at && <div><dt>Key last used</dt><dd><Ago at={hub.key.last_used_at} now={now} /></dd></div>}
          </dl>
          <Strip cells={hub.strip} now={now} />
        </section>
      )}
      <div class="panels one">
        {PANELS.map(({ id, title, unit, expr }) => (
          <Panel key={id} id={id} title={title} unit={unit} expr={expr(ofHub(name))} pens={pens} rules={rules.data ?? []} />
        ))}
      </div>
    </>
  );
}

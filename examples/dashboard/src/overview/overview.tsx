import { useMemo } from "preact/hooks";
import { useApp, useChanges } from "../app/context.ts";
import { href } from "../app/location.ts";
import { windowOf } from "../app/range.ts";
import { pensOf } from "../charts/colours.ts";
import { Panel } from "../charts/panel.tsx";
import { columnsOf } from "../charts/series.ts";
import { Sparkline } from "../charts/sparkline.tsx";
import { useLoad } from "../data/load.ts";
import { useHubs } from "../hubs/use-hubs.ts";
import { Chip } from "../ui/chip.tsx";
import { ErrorNote, Skeleton, Stale } from "../ui/states.tsx";
import { duration, number } from "../ui/units.ts";
import { HEARTBEAT, PANELS } from "./panels.ts";

export function Overview() {
  const { rows } = useApp();
  const hubs = useHubs();
  const rules = useLoad(`rules ${rows.organisation}`, useChanges("alert_rule_status"), rows.rules);
  const pens = useMemo(() => pensOf(rows.organisation, (hubs.data ?? []).map(({ name }) => name)), [hubs.data]);
  return (
    <>
      <h1>Overview</h1>
      <div class="facts">
        <HubsFact hubs={hubs} />
        <AlertsFact />
        <SamplesFact />
      </div>
      <div class="panels">
        {PANELS.map(({ id, title, unit, expr }) => (
          <Panel key={id} id={id} title={title} unit={unit} expr={expr("")} pens={pens} rules={rules.data ?? []} isNew={hubs.data?.every(({ state }) => state === "new") ?? false} />
        ))}
      </div>
    </>
  );
}

function HubsFact({ hubs }: { hubs: ReturnType<typeof useHubs> }) {
  const { data, error, reload } = hubs;
  const { now } = useApp();
  if (error && !data) return <section class="card fact"><ErrorNote error={error} retry={reload} small /></section>;
  if (!data) return <section class="card fact"><Skeleton shape="fact" /></section>;
  const known = data.filter(({ state }) => state !== "new");
  const silent = known.filter(({ state }) => state === "silent");
  const longest = silent[0];
  return (
    <section class="card fact" aria-label="Hubs reporting">
      <h2>Hubs reporting <Stale of={hubs} /></h2>
      <p class="figure">{known.length - silent.length} <span class="muted">of {known.length}</span></p>
      {longest ? (
        <p>
          <Chip meaning="warning">{`${silent.length} silent`}</Chip>{" "}
          <a href={href("hubs", longest.name)}>{longest.name}</a>{" "}
          <span class="muted">for {duration(now / 1000 - longest.lastSeen!)}</span>
        </p>
      ) : (
        <p>{known.length ? <Chip meaning="ok">all report</Chip> : <span class="muted">No device has written yet.</span>}</p>
      )}
    </section>
  );
}

function AlertsFact() {
  const { rows, now } = useApp();
  const events = useLoad(`events ${rows.organisation}`, useChanges("alert_event"), () => rows.events(1));
  const { data, error, reload } = events;
  if (error && !data) return <section class="card fact"><ErrorNote error={error} retry={reload} small /></section>;
  if (!data) return <section class="card fact"><Skeleton shape="fact" /></section>;
  const firing = data.filter(({ state }) => state === "firing");
  const [newest] = firing;
  return (
    <section class="card fact" aria-label="Firing alerts">
      <h2>Firing alerts <Stale of={events} /></h2>
      <p class="figure">{firing.length}</p>
      {newest ? (
        <p>
          <Chip meaning="critical">firing</Chip> <a href={href("alerts")}>{newest.labels.alertname ?? "Silent device"}</a>{" "}
          <span class="muted">{newest.labels.hub ?? newest.labels.device} for {duration((now - Date.parse(newest.started_at)) / 1000)}</span>
        </p>
      ) : (
        <p><Chip meaning="ok">nothing fires</Chip></p>
      )}
    </section>
  );
}

function SamplesFact() {
  const { prometheus, now } = useApp();
  const hour = windowOf({ last: 3600 }, now, 60);
  const samples = useLoad(`samples ${prometheus.organisation}`, hour.end, async (signal) =>
    columnsOf(await prometheus.range(`sum(rate(${HEARTBEAT}[5m])) * 60`, hour, signal), hour),
  );
  const { data, error, reload } = samples;
  if (error && !data) return <section class="card fact"><ErrorNote error={error} retry={reload} small /></section>;
  if (!data) return <section class="card fact"><Skeleton shape="fact" /></section>;
  const values = data.columns[0]?.values ?? [];
  return (
    <section class="card fact" aria-label="Samples per minute">
      <h2>Samples per minute <Stale of={samples} /></h2>
      <p class="figure">{number(values.at(-1) ?? values.at(-2) ?? null)}</p>
      <p class="muted">
        {values.length ? <Sparkline values={values} width={160} label="samples per minute in the last hour" /> : "No device has written yet."} <span>last hour</span>
      </p>
    </section>
  );
}

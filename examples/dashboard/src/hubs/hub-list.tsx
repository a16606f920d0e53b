import { useMemo, useState } from "preact/hooks";
import { useApp } from "../app/context.ts";
import { href, setParams, useLocation } from "../app/location.ts";
import { pensOf } from "../charts/colours.ts";
import { Swatch } from "../charts/legend.tsx";
import { Empty, ErrorNote, Skeleton } from "../ui/states.tsx";
import { Ago } from "../ui/time.tsx";
import { FirstKey } from "./first-key.tsx";
import { HubState } from "./hub-state.tsx";
import { uptime } from "./hubs.ts";
import { KeyState } from "./key-state.tsx";
import { Strip } from "./strip.tsx";
import { useHubs } from "./use-hubs.ts";

const PAGE = 100;

export function HubList() {
  const { now, organisation } = useApp();
  const { params } = useLocation();
  const { data, error, at, reload } = useHubs();
  const [shown, setShown] = useState(PAGE);
  const pens = useMemo(() => pensOf(organisation.id, (data ?? []).map(({ name }) => name)), [data]);
  const wanted = (params.get("find") ?? "").toLowerCase();
  const found = (data ?? []).filter(({ name }) => name.toLowerCase().includes(wanted));
  return (
    <>
      <div class="title">
        <h1>Hubs</h1>
        {data && data.length > 0 && (
          <input
            type="search"
            aria-label="Filter hubs"
            placeholder="Filter"
            value={params.get("find") ?? ""}
            onInput={(event) => setParams({ find: event.currentTarget.value || null }, true)}
          />
        )}
      </div>
      {error && <ErrorNote error={error} retry={reload} stale={data && at} />}
      {!data && !error && <Skeleton shape="table" />}
      {data && !data.length && (
        <Empty title="No device has written yet" action={<FirstKey />}>
          A hub is listed here with its first sample. Each series should have a label <code>hub</code>.
        </Empty>
      )}
      {data && data.length > 0 && !found.length && <Empty title="No hub has this in its name" />}
      {found.length > 0 && (
        <div class="card table-card">
          <table class="rows">
            <thead>
              <tr>
                <th scope="col">Hub</th>
                <th scope="col">State</th>
                <th scope="col">Last seen</th>
                <th scope="col" class="wide">Last 24 hours</th>
                <th scope="col" class="num">Uptime</th>
                <th scope="col">Key</th>
              </tr>
            </thead>
            <tbody>
              {found.slice(0, shown).map((hub) => (
                <tr key={hub.name} data-hub={hub.name}>
                  <th scope="row"><a href={href("hubs", hub.name)}><Swatch pen={pens.get(hub.name)!} />{hub.name}</a></th>
                  <td data-label="State"><HubState of={hub} /></td>
                  <td data-label="Last seen">{hub.lastSeen === null ? <span class="muted">not in the last day</span> : <Ago at={hub.lastSeen * 1000} now={now} />}</td>
                  <td data-label="24 hours" class="wide"><Strip cells={hub.strip} now={now} /></td>
                  <td data-label="Uptime" class="num">{percent(uptime(hub.strip))}</td>
                  <td data-label="Key"><KeyState of={hub.key} /></td>
                </tr>
              ))}
            </tbody>
          </table>
          {found.length > shown && <button type="button" class="more" onClick={() => setShown(shown + PAGE)}>Show {Math.min(PAGE, found.length - shown)} more of {found.length}</button>}
        </div>
      )}
    </>
  );
}

export function percent(share: number | null): string {
  if (share === null) return "none";
  // 99.9 must not read as all.
  return `${share === 1 ? 100 : (Math.floor(share * 1000) / 10).toFixed(1)} %`;
}

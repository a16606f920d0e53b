/** The routes in the order in which they are tried, and what becomes of everything else. */
import { useState } from "preact/hooks";
import { canEdit, useApp } from "../app/context.ts";
import { refused } from "../data/load.ts";
import type { Refused } from "../data/proxy.ts";
import type { Channel, Route, RouteStatus } from "../data/rows.ts";
import { Chip } from "../ui/chip.tsx";
import { Icon, icons } from "../ui/icons.tsx";
import { ErrorNote, sentence } from "../ui/states.tsx";
import { reasonWords } from "./reason.ts";
import { StatusChip } from "./status-chip.tsx";

interface Props {
  routes: Route[];
  routeStatuses: Map<string, RouteStatus>;
  channels: Channel[];
  reload: () => void;
  onEdit: (route: Route | null) => void;
  onDelete: (route: Route) => void;
}

export function RouteList({ routes, routeStatuses, channels, reload, onEdit, onDelete }: Props) {
  const app = useApp();
  const [busy, setBusy] = useState(false);
  const [failure, setFailure] = useState<Refused | null>(null);
  const name = (id: string) => channels.find((channel) => channel.id === id)?.name ?? "a channel that is gone";
  const defaults = channels.filter((channel) => channel.is_default && channel.enabled);
  const move = async (at: number, by: number) => {
    setBusy(true);
    setFailure(null);
    await inOrder(app.rows.saveRoute, moved(routes, at, by)).catch((error: unknown) => setFailure(refused(error)));
    reload();
    setBusy(false);
  };
  const editable = canEdit(app);
  return (
    <section aria-label="Routes">
      <div class="title">
        <h2>Routes, in the order they are tried</h2>
        <span class="spring" />
        {editable && <button type="button" class="small" onClick={() => onEdit(null)}><Icon of={icons.Plus} /> New route</button>}
      </div>
      {failure && <ErrorNote error={failure} small />}
      <ol class="card routes">
        {routes.map((route, at) => {
          const status = routeStatuses.get(route.id);
          const called = route.matchers?.length ? route.matchers.join(" ") : "every alert";
          return (
            <li key={route.id} class={route.enabled ? "" : "off"} data-route={called}>
              <div class="route-what">
                <p>
                  <code>{called}</code> <span>goes to <span class="strong">{name(route.channel_id)}</span></span>
                </p>
                <p class="muted">{detail(route)}</p>
                {status?.reason && status.state !== "disabled" && <p class="reason">{sentence(reasonWords(status.reason))}</p>}
              </div>
              <StatusChip state={status?.state ?? "pending"} />
              {editable && (
                <div class="actions">
                  {routes.length > 1 && (
                    <>
                      <button type="button" class="ghost icon-only small" aria-label={`Try earlier: ${called}`} disabled={busy || at === 0} onClick={() => move(at, -1)}><Icon of={icons.ArrowUp} /></button>
                      <button type="button" class="ghost icon-only small" aria-label={`Try later: ${called}`} disabled={busy || at === routes.length - 1} onClick={() => move(at, 1)}><Icon of={icons.ArrowDown} /></button>
                    </>
                  )}
                  <button type="button" class="small" aria-label={`Edit the route ${called}`} onClick={() => onEdit(route)}>Edit</button>
                  <button type="button" class="small ghost danger" aria-label={`Delete the route ${called}`} onClick={() => onDelete(route)}>Delete</button>
                </div>
              )}
            </li>
          );
        })}
        <li>
          <p class="route-what">
            everything else{" "}
            {defaults.length ? <span>goes to <span class="strong">{defaults.map((channel) => channel.name).join(", ")}</span></span> : <Chip meaning="warning" icon={icons.BellOff}>notifies nobody</Chip>}
          </p>
        </li>
      </ol>
    </section>
  );
}

function detail(route: Route): string {
  const said = [
    !route.enabled && "off",
    route.continue_matching && "then on to the next",
    route.group_by && `grouped by ${route.group_by.join(", ")}`,
    route.group_wait && `first after ${route.group_wait}`,
    route.group_interval && `changes every ${route.group_interval}`,
    route.repeat_interval && `again every ${route.repeat_interval}`,
    route.mute_times?.length && "muted at times",
  ];
  return said.filter(Boolean).join(", ");
}

/** The positions that change if a route moves. Routes of one position are in the order of their age. */
export function moved(routes: Route[], at: number, by: number): Pick<Route, "id" | "position">[] {
  const order = [...routes];
  const [route] = order.splice(at, 1);
  if (route) order.splice(at + by, 0, route);
  return order.map(({ id }, index) => ({ id, position: index + 1 })).filter(({ id, position }) => routes.find((old) => old.id === id)!.position !== position);
}

async function inOrder(save: (draft: { position: number }, id: string) => Promise<unknown>, changes: Pick<Route, "id" | "position">[]): Promise<void> {
  for (const { id, position } of changes) await save({ position }, id);
}

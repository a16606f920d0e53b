/** The organisation's hubs, from what they send and from the keys that they send it with. */
import type { Prometheus } from "../data/prometheus.ts";
import type { DeviceKey } from "../data/rows.ts";
import { HEARTBEAT } from "../overview/panels.ts";

/** A hub that sent nothing for this long is silent. */
export const SILENT_AFTER_S = 120;
const DAY_S = 86_400;
/** One cell of the strip. */
export const CELL_S = 900;

export type Cell = "none" | "some" | "all";

export interface Hub {
  name: string;
  /** When its newest sample was taken (s); null if there is none of the last day. */
  lastSeen: number | null;
  /** `new`: it has a key and has sent nothing of the last day with it. */
  state: "reports" | "silent" | "new";
  /** A day in quarters of an hour, oldest first. */
  strip: Cell[];
  key: DeviceKey | undefined;
}

export interface Seen {
  lastSeen: Map<string, number>;
  strips: Map<string, Cell[]>;
  now: number;
}

export async function readHubs(prometheus: Prometheus, nowMs: number, signal: AbortSignal): Promise<Seen> {
  const now = nowMs / 1000;
  const end = Math.floor(now / CELL_S) * CELL_S;
  const window = { start: end - DAY_S + CELL_S, end, step: CELL_S };
  const [last, counts] = await Promise.all([
    // timestamp() is a sample's own time. The subquery finds that of hubs which have gone silent.
    prometheus.instant(
      `max by (hub) (timestamp(${HEARTBEAT})) or max by (hub) (max_over_time(timestamp(${HEARTBEAT})[1d:1m]))`,
      now,
      signal,
    ),
    prometheus.range(`sum by (hub) (count_over_time(${HEARTBEAT}[${CELL_S}s]))`, window, signal),
  ]);
  const lastSeen = new Map(last.map(({ metric, value }) => [metric.hub ?? "", Number(value[1])]));
  const strips = new Map(
    counts.map(({ metric, values }) => {
      // Compared with what is usual for this hub, and not with its best: it may have been asked to send less often.
      const usual = values.map(([, count]) => Number(count)).sort((a, b) => a - b)[values.length >> 1]!;
      const strip: Cell[] = new Array(DAY_S / CELL_S).fill("none");
      for (const [time, count] of values) {
        strip[Math.round((time - window.start) / CELL_S)] = Number(count) < usual * 0.9 ? "some" : "all";
      }
      return [metric.hub ?? "", strip];
    }),
  );
  return { lastSeen, strips, now };
}

const ORDER: Hub["state"][] = ["silent", "reports", "new"];

/** Silent ones first, those that are silent for longest at the top. */
export function hubsOf({ lastSeen, strips, now }: Seen, keys: DeviceKey[]): Hub[] {
  const byName = new Map<string, DeviceKey>();
  for (const key of keys) {
    // The newest key that can be used stands for a hub with several.
    const known = byName.get(key.name);
    if (!known || (known.revoked_at && !key.revoked_at)) byName.set(key.name, key);
  }
  const names = new Set([...lastSeen.keys(), ...strips.keys()]);
  for (const key of keys) if (key.scopes.includes("metrics:write") && !key.revoked_at) names.add(key.name);
  names.delete("");
  const hubs = [...names].map((name): Hub => {
    const seen = lastSeen.get(name) ?? null;
    return {
      name,
      lastSeen: seen,
      state: seen === null ? "new" : now - seen > SILENT_AFTER_S ? "silent" : "reports",
      strip: strips.get(name) ?? new Array<Cell>(DAY_S / CELL_S).fill("none"),
      key: byName.get(name),
    };
  });
  return hubs.sort(
    (a, b) =>
      ORDER.indexOf(a.state) - ORDER.indexOf(b.state) ||
      (a.state === "silent" ? a.lastSeen! - b.lastSeen! : 0) ||
      a.name.localeCompare(b.name, undefined, { numeric: true }),
  );
}

/** The share of quarters of an hour with data, of those since the first one. */
export function uptime(strip: Cell[]): number | null {
  const first = strip.findIndex((cell) => cell !== "none");
  if (first < 0) return null;
  const since = strip.slice(first);
  return since.filter((cell) => cell !== "none").length / since.length;
}

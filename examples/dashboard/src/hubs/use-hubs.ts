import { useMemo } from "preact/hooks";
import { useApp } from "../app/context.ts";
import { type Loaded, useLoad } from "../data/load.ts";
import { type Hub, hubsOf, readHubs } from "./hubs.ts";

export function useHubs(): Loaded<Hub[]> {
  const { prometheus, rows, now, range } = useApp();
  // Hubs are shown as they are now, also beside charts of last week.
  const at = "last" in range ? now : Date.now();
  const seen = useLoad(`seen ${rows.organisation}`, now, (signal) => readHubs(prometheus, at, signal));
  const keys = useLoad(`keys ${rows.organisation}`, now, rows.deviceKeys);
  const data = useMemo(
    () => (seen.data && (keys.data || keys.error) ? hubsOf(seen.data, keys.data ?? []) : undefined),
    [seen.data, keys.data, keys.error],
  );
  // Without keys there is still a list of hubs; without telemetry there is not.
  return { ...seen, data };
}

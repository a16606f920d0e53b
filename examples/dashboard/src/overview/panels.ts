/**
 * The charts of the overview and of a hub's page. This is the first file to change for telemetry of your own:
 * each series should have a label `hub`.
 */
import { quote } from "../data/prometheus.ts";
import type { Unit } from "../ui/units.ts";

export interface PanelSpec {
  id: string;
  title: string;
  unit: Unit;
  expr: (selector: string) => string;
}

export const PANELS: PanelSpec[] = [
  { id: "temperature", title: "Temperature", unit: "celsius", expr: (s) => `hub_temperature_celsius${s}` },
  { id: "humidity", title: "Humidity", unit: "percent", expr: (s) => `hub_humidity_percent${s}` },
  { id: "battery", title: "Battery", unit: "volts", expr: (s) => `hub_battery_volts${s}` },
  { id: "uplink", title: "Uplink signal", unit: "dbm", expr: (s) => `hub_uplink_rssi_dbm${s}` },
];

/** A counter that every hub writes as long as it works. */
export const HEARTBEAT = "hub_samples_total";

export function ofHub(hub: string): string {
  return `{hub=${quote(hub)}}`;
}

/** What every view needs: who is signed in, of which organisation things are shown, and of which time. */
import type { SupabaseClient } from "@supabase/supabase-js";
import { createContext } from "preact";
import { useContext, useEffect, useState } from "preact/hooks";
import type { Alertmanager } from "../data/alertmanager.ts";
import { watch, type Tables } from "../data/live.ts";
import type { Prometheus } from "../data/prometheus.ts";
import type { Proxy } from "../data/proxy.ts";
import type { Organisation, Rows } from "../data/rows.ts";
import type { Config } from "./config.ts";
import type { Range } from "./range.ts";

export interface Access extends Organisation {
  role: string;
  scopes: string[];
}

export interface App {
  config: Config;
  supabase: SupabaseClient;
  proxy: Proxy;
  organisation: Access;
  organisations: Access[];
  email: string;
  prometheus: Prometheus;
  alertmanager: Alertmanager;
  rows: Rows;
  range: Range;
  /** The time that charts end at (ms). It moves every 15 s. */
  now: number;
}

export const AppContext = createContext<App | null>(null);

export function useApp(): App {
  const app = useContext(AppContext);
  if (!app) throw new Error("outside of the app");
  return app;
}

export function can(app: App, scope: string): boolean {
  return app.organisation.scopes.includes(scope);
}

/** Rules, channels and routes are written through Supabase, whose policies name these roles. */
export function canEdit(app: App): boolean {
  return ["owner", "admin", "editor"].includes(app.organisation.role);
}

/** Grows when rows of one of the tables may have changed. */
export function useChanges(...tables: Tables[]): number {
  const { supabase, config, organisation } = useApp();
  const [version, setVersion] = useState(0);
  const names = tables.join();
  useEffect(() => {
    const changed = () => setVersion((n) => n + 1);
    const stops = tables.map((table) => watch(supabase, config.realtime === true, table, organisation.id, changed));
    return () => stops.forEach((stop) => stop());
  }, [supabase, organisation.id, names]);
  return version;
}

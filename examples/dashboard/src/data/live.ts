/**
 * Tells when rows of a table change: by Supabase Realtime where it is there, else by asking again every few
 * seconds. A change is only a hint; whoever is told reads the rows anew, so nothing depends on the order or
 * the number of messages.
 */
import type { SupabaseClient } from "@supabase/supabase-js";

const POLL_MS = 3000;

export type Tables = "alert_event" | "alert_rule_status" | "notification_channel_status";

export function watch(
  supabase: SupabaseClient,
  realtime: boolean,
  table: Tables,
  organisation: string,
  changed: () => void,
): () => void {
  let poll: ReturnType<typeof setInterval> | undefined;
  const startPolling = () => (poll ??= setInterval(() => document.hidden || changed(), POLL_MS));
  const stopPolling = () => {
    clearInterval(poll);
    poll = undefined;
  };
  // Until the socket is open, and whenever it is not.
  startPolling();
  if (!realtime) return stopPolling;
  const filter = `organisation_id=eq.${organisation}`;
  const channel = supabase
    .channel(`${table}:${organisation}:${crypto.randomUUID()}`)
    .on("postgres_changes", { event: "*", schema: "public", table, filter }, changed)
    .subscribe((status) => {
      if (status !== "SUBSCRIBED") return void startPolling();
      stopPolling();
      // What happened while nobody listened.
      changed();
    });
  return () => {
    stopPolling();
    void supabase.removeChannel(channel);
  };
}

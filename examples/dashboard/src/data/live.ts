/**
 * Tells when rows of a table change: by Supabase Realtime where it is there, else by asking again every few
 * seconds. A change is only a hint; whoever is told reads the rows anew, so nothing depends on the order or
 * the number of messages.
 */
import type { SupabaseClient } from "@supabase/supabase-js";

const POLL_MS = 3000;
/** With Realtime, too: it does not tell of deletions, and promises no delivery. */
const SLOW_POLL_MS = 60_000;
/** One sync changes many rows, each with a message of its own: they are read once. */
const GATHER_MS = 200;
/** After the server has closed a channel. What fails otherwise, supabase-js tries again by itself. */
const AGAIN_MS = 10_000;

export type Tables = "alert_event" | "alert_rule_status" | "notification_channel_status" | "notification_route_status";

export function watch(
  supabase: SupabaseClient,
  realtime: boolean,
  table: Tables,
  organisation: string,
  changed: () => void,
): () => void {
  let timer: ReturnType<typeof setInterval> | undefined;
  let soon: ReturnType<typeof setTimeout> | undefined;
  // Not put off by further messages, or a steady stream of them would never be read.
  const told = () => {
    soon ??= setTimeout(() => {
      soon = undefined;
      changed();
    }, GATHER_MS);
  };
  const poll = (every: number) => {
    clearInterval(timer);
    timer = setInterval(() => document.hidden || changed(), every);
  };
  // Until Realtime tells, and whenever it does not.
  poll(POLL_MS);
  const unsubscribe = realtime ? subscribe(supabase, table, organisation, told, (tells) => poll(tells ? SLOW_POLL_MS : POLL_MS)) : () => {};
  return () => {
    clearInterval(timer);
    clearTimeout(soon);
    unsubscribe();
  };
}

function subscribe(supabase: SupabaseClient, table: Tables, organisation: string, changed: () => void, onState: (tells: boolean) => void): () => void {
  let stopped = false;
  let again: ReturnType<typeof setTimeout> | undefined;
  const filter = `organisation_id=eq.${organisation}`;
  const channel = supabase
    .channel(`${table}:${organisation}:${crypto.randomUUID()}`)
    // Not "*": of deletions Realtime tells every subscriber, of whichever organisation, past row-level security.
    .on("postgres_changes", { event: "UPDATE", schema: "public", table, filter }, changed)
    .on("postgres_changes", { event: "INSERT", schema: "public", table, filter }, changed)
    // A channel is SUBSCRIBED before the server listens to the database, and stays so if it cannot: the table
    // may be missing in the publication. This message says which.
    .on("system", {}, ({ extension, status }: { extension?: string; status?: string }) => {
      if (extension !== "postgres_changes") return;
      onState(status === "ok");
      // What happened while nobody listened.
      if (status === "ok") changed();
    })
    .subscribe((status) => {
      if (stopped || status === "SUBSCRIBED") return;
      onState(false);
      if (status !== "CLOSED") return;
      again = setTimeout(() => (unsubscribe = subscribe(supabase, table, organisation, changed, onState)), AGAIN_MS);
    });
  let unsubscribe: () => void = () => void supabase.removeChannel(channel);
  return () => {
    stopped = true;
    clearTimeout(again);
    unsubscribe();
  };
}

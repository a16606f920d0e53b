import assert from "node:assert/strict";
import { test } from "node:test";
import type { SupabaseClient } from "@supabase/supabase-js";
import { watch } from "../src/data/live.ts";

interface Asked {
  event?: string;
  table?: string;
  filter?: string;
}

/** What a page subscribes to, and a way to tell it of a change. */
function realtime(): { asked: Asked[]; tell: () => void; client: SupabaseClient } {
  const asked: Asked[] = [];
  const callbacks: (() => void)[] = [];
  const channel = {
    on(kind: string, to: Asked, callback: () => void) {
      if (kind === "postgres_changes") {
        asked.push(to);
        callbacks.push(callback);
      }
      return channel;
    },
    subscribe: () => channel,
  };
  const client = { channel: () => channel, removeChannel: () => Promise.resolve("ok") };
  return { asked, tell: () => callbacks.forEach((callback) => callback()), client: client as unknown as SupabaseClient };
}

// Row-level security does not apply to deletions: https://supabase.com/docs/guides/realtime/postgres-changes
test("deletions are not subscribed to: they are told of every organisation", () => {
  const { asked, client } = realtime();
  watch(client, true, "alert_event", "acme", () => {})();
  assert.deepEqual(asked.map(({ event }) => event).sort(), ["INSERT", "UPDATE"]);
  for (const { table, filter } of asked) assert.deepEqual([table, filter], ["alert_event", "organisation_id=eq.acme"]);
});

test("rows that change together are read once, and later ones again", (t) => {
  t.mock.timers.enable({ apis: ["setTimeout", "setInterval"] });
  const { tell, client } = realtime();
  let reads = 0;
  const stop = watch(client, true, "alert_event", "acme", () => reads++);
  for (let n = 0; n < 50; n++) tell();
  assert.equal(reads, 0);
  t.mock.timers.tick(200);
  assert.equal(reads, 1);
  tell();
  t.mock.timers.tick(200);
  assert.equal(reads, 2);
  tell();
  stop();
  t.mock.timers.tick(1000);
  assert.equal(reads, 2, "it is over");
});

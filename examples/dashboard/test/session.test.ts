import assert from "node:assert/strict";
import { test } from "node:test";
import { createClient, type Session } from "@supabase/supabase-js";
import { Proxy } from "../src/data/proxy.ts";
import { hasLeft, leave, SESSION_KEY } from "../src/session/leaving.ts";

/** Node 20 has no WebSocket, and nothing here needs one. */
class NoSocket {}

const ADAM = { access_token: "token of adam", refresh_token: "r1", token_type: "bearer", expires_in: 3600, expires_at: Date.now() / 1000 + 3600, user: { id: "adam" } } as unknown as Session;

/** The real supabase-js with adam's session. `answer` is Supabase. */
function signedIn(answer: (url: string) => Promise<Response>) {
  const kept = new Map([[SESSION_KEY, JSON.stringify(ADAM)]]);
  const store = { getItem: (key: string) => kept.get(key) ?? null, setItem: (key: string, value: string) => void kept.set(key, value), removeItem: (key: string) => void kept.delete(key) };
  const supabase = createClient("http://supabase.test", "anon", {
    auth: { storage: store, storageKey: SESSION_KEY, autoRefreshToken: false },
    global: { fetch: (url) => answer(String(url)) },
    realtime: { transport: NoSocket as unknown as typeof WebSocket },
  });
  return { supabase, store, kept };
}

const json = (status: number, body: unknown) => Promise.resolve(new Response(JSON.stringify(body), { status, headers: { "Content-Type": "application/json" } }));

test("a sign-out forgets the session whatever Supabase answers, and says if it could not be told", async () => {
  for (const [name, answer, isTold] of [
    ["204", () => Promise.resolve(new Response(null, { status: 204 })), true],
    ["the session is gone", () => json(403, { code: 403, error_code: "session_not_found", msg: "gone" }), true],
    ["500", () => json(500, { msg: "broken" }), false],
    ["429", () => json(429, { msg: "slow down" }), false],
    ["no network", () => Promise.reject(new TypeError("Failed to fetch")), false],
    ["no answer", () => new Promise<Response>(() => {}), false],
  ] as const) {
    const { supabase, store, kept } = signedIn(answer);
    const said: string[] = [];
    supabase.auth.onAuthStateChange((event) => void said.push(event));
    const before = Date.now();
    const failure = await leave(supabase, ADAM, store, 200);
    assert.equal(failure === null, isTold, name);
    assert.equal(kept.has(SESSION_KEY), false, name);
    assert.equal((await supabase.auth.getSession()).data.session, null, name);
    assert.ok(said.includes("SIGNED_OUT"), name);
    assert.ok(hasLeft("adam", before, store), name);
    assert.ok(!hasLeft("berta", before, store), name);
    assert.ok(!hasLeft("adam", Date.now() + 1000, store), "who signs in again has not left");
  }
});

test("a renewal that is answered after the sign-out brings nobody back", async () => {
  let renew!: (answer: Response) => void;
  const { supabase, store, kept } = signedIn((url) =>
    url.includes("/token") ? new Promise((go) => (renew = go)) : Promise.resolve(new Response(null, { status: 204 })),
  );
  const renewal = supabase.auth.refreshSession();
  while (!renew) await new Promise((go) => setTimeout(go, 5));
  assert.equal(await leave(supabase, ADAM, store), null);
  renew(await json(200, { ...ADAM, access_token: "renewed", refresh_token: "r2" }));
  await renewal;
  assert.equal(kept.has(SESSION_KEY), false);
  assert.equal((await supabase.auth.getSession()).data.session, null);
});

test("a session that ended by itself was not left", () => {
  const { store } = signedIn(() => json(500, {}));
  store.removeItem(SESSION_KEY);
  assert.ok(!hasLeft("adam", 0, store));
  store.setItem("dashboard-left", "{");
  assert.ok(!hasLeft("adam", 0, store));
});

test("the proxy is asked for nobody but who the page is shown to, and for no other path", async () => {
  const { supabase, store, kept } = signedIn(() => json(500, {}));
  const asked: string[] = [];
  const real = globalThis.fetch;
  globalThis.fetch = ((url: string) => (asked.push(url), json(401, { error: "expired" }))) as typeof fetch;
  try {
    await assert.rejects(new Proxy("http://proxy.test", supabase, "berta").request("/admin/whoami"), /somebody else/);
    const own = new Proxy("http://proxy.test", supabase, "adam");
    for (const path of ["/admin/organisations/../rules/sync", "/a/.", "/a/..", "/a/%2E%2e/b", "/a/.%2e?b", "/a\\..\\b", "/a/.\t./b"]) {
      await assert.rejects(own.request(path, { method: "POST" }), /dots/, path);
    }
    assert.deepEqual(asked, []);
    await own.send("/a/.../b.c?d=../e", "GET", {});
    assert.deepEqual(asked, ["http://proxy.test/a/.../b.c?d=../e"]);
    kept.delete(SESSION_KEY);
    await assert.rejects(own.request("/admin/whoami"), /not signed in/);
    assert.equal(asked.length, 1);
    assert.equal(store.getItem(SESSION_KEY), null);
  } finally {
    globalThis.fetch = real;
  }
});

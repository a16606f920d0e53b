import assert from "node:assert/strict";
import { test } from "node:test";
import { type Answer, Asker, pauseAfter, type World } from "../src/data/asker.ts";
import { carefulFetch, EXPIRED } from "../src/data/careful-fetch.ts";
import { OFFLINE } from "../src/data/network.ts";
import { Proxy } from "../src/data/proxy.ts";
import { Refused, refused } from "../src/data/refused.ts";
import { rows } from "../src/data/rows.ts";

/** A world whose time passes when a test says so. */
class Fake implements World {
  online = true;
  now = 0;
  private timers: { at: number; work: () => void }[] = [];
  private backs = new Set<() => void>();
  isOnline = () => this.online;
  whenOnline = (back: () => void) => {
    this.backs.add(back);
    return () => void this.backs.delete(back);
  };
  after = (ms: number, work: () => void) => {
    const timer = { at: this.now + ms, work };
    this.timers.push(timer);
    return () => void (this.timers = this.timers.filter((other) => other !== timer));
  };
  async pass(seconds: number): Promise<void> {
    const end = this.now + seconds * 1000;
    for (;;) {
      await settle();
      const [next] = this.timers.filter(({ at }) => at <= end).sort((a, b) => a.at - b.at);
      if (!next) break;
      this.timers = this.timers.filter((other) => other !== next);
      this.now = next.at;
      next.work();
    }
    this.now = end;
  }
  connect(): void {
    this.online = true;
    for (const back of this.backs) back();
  }
}

const settle = () => new Promise<void>((go) => setImmediate(go));

function asked(world: World, load: (signal: AbortSignal) => Promise<string>) {
  const told: string[] = [];
  const tell = (answer: Answer<string>) => told.push("data" in answer ? answer.data : `error: ${answer.error.reason}`);
  return { told, asker: new Asker(load, tell, world) };
}

test("a failure is told at once, and the pauses before the next attempts grow however often something changes", async () => {
  const world = new Fake();
  let count = 0;
  const { told, asker } = asked(world, () => (count++, Promise.reject(new Refused(502, "down"))));
  asker.changed();
  await settle();
  assert.deepEqual(told, ["error: down"]);
  for (let second = 0; second < 60; second += 3) {
    asker.changed();
    await world.pass(3);
  }
  assert.ok(count >= 4 && count <= 7, `${count} requests in a minute`);
  asker.stop();
  const before = count;
  await world.pass(600);
  assert.equal(count, before);
});

test("changes that come faster than answers lose neither the answer nor the last change", async () => {
  const world = new Fake();
  let count = 0;
  const { told, asker } = asked(world, () => new Promise((go) => world.after(5000, () => go(`answer ${++count}`))));
  asker.changed();
  for (let at = 0; at < 4; at++) {
    await world.pass(1);
    asker.changed();
  }
  await world.pass(20);
  assert.deepEqual(told, ["answer 1", "answer 2"]);
});

test("no answer is told as such, and a late one still counts", async () => {
  const world = new Fake();
  const { told, asker } = asked(world, () => new Promise((go) => world.after(15_000, () => go("late"))));
  asker.changed();
  await world.pass(12);
  assert.deepEqual(told, ["error: there is no answer after 10 s"]);
  await world.pass(12);
  assert.deepEqual(told.slice(1), ["late"]);
});

test("without a network nothing is sent and that is said once; when it returns, what failed is asked at once", async () => {
  const world = new Fake();
  let count = 0;
  const { told, asker } = asked(world, () => (count++, Promise.resolve("here")));
  world.online = false;
  for (let at = 0; at < 10; at++) {
    asker.changed();
    await world.pass(3);
  }
  assert.deepEqual([count, told], [0, [`error: ${OFFLINE}`]]);
  world.connect();
  await settle();
  assert.deepEqual([count, told.at(-1)], [1, "here"]);
});

test("a wrong question is not repeated until something changes, and a person need not wait", async () => {
  const world = new Fake();
  let count = 0;
  const { asker } = asked(world, () => (count++, Promise.reject(new Refused(400, "bad"))));
  asker.changed();
  await world.pass(300);
  assert.equal(count, 1);
  asker.changed();
  await settle();
  asker.now();
  await settle();
  assert.equal(count, 3);
});

test("a pause grows to a minute, and is as long as the server asks", () => {
  assert.deepEqual([1, 2, 3, 10].map((failures) => pauseAfter(failures, new Refused(502, ""), 0.5)), [2, 4, 8, 60]);
  assert.equal(pauseAfter(1, new Refused(503, "", null, 30), 0.5), 30);
});

test("the proxy's answer is given as it is: whoever asks decides about another attempt", async (t) => {
  let count = 0;
  t.mock.method(globalThis, "fetch", () => (count++, Promise.resolve(new Response('{"error":"away"}', { status: 503, headers: { "Retry-After": "1" } }))));
  const supabase = { auth: { getSession: () => Promise.resolve({ data: { session: { access_token: "x", user: { id: "adam" } } } }) } };
  const failure = await new Proxy("http://proxy", supabase as never, "adam").request("/x").catch((error: unknown) => error as Refused);
  assert.ok(failure instanceof Refused);
  assert.deepEqual([count, failure.reason, failure.retryAfter], [1, "away", 1]);
});

test("without a session the proxy is not asked: a renewal without an answer may come, a refused one is the end of the session", async (t) => {
  t.mock.method(globalThis, "fetch", () => assert.fail("it was asked"));
  const failure = async (status: number) => {
    const supabase = { auth: { getSession: () => Promise.resolve({ data: { session: null }, error: { status, message: "no" } }) } };
    const { status: told, reason } = await new Proxy("http://proxy", supabase as never, "adam").request("/x").catch((error: unknown) => error as Refused) as Refused;
    return [told, reason];
  };
  for (const status of [0, 429, 503]) assert.deepEqual(await failure(status), [0, EXPIRED]);
  for (const status of [400, 403]) assert.deepEqual(await failure(status), [401, "you are not signed in any more"]);
});

test("rows are not read as nobody, and a session that cannot be renewed is said", async () => {
  const send = carefulFetch("anon", () => Promise.resolve(Response.json([])));
  const as = (token: string) => ({ headers: { Authorization: `Bearer ${token}` } });
  await assert.rejects(send("http://s/rest/v1/alert_rule", as("anon")), new Error(EXPIRED));
  assert.equal((await send("http://s/rest/v1/alert_rule", as("token"))).status, 200);
  assert.equal((await send("http://s/auth/v1/token", as("anon"))).status, 200);
});

test("a request without an answer is told in our words and not in the browser's", () => {
  const reason = (message: string, status = 0) => {
    try {
      rows({ data: null, error: { message }, status });
    } catch (error) {
      return (error as Refused).reason;
    }
    return "";
  };
  assert.equal(reason("TypeError: Failed to fetch"), "the database cannot be reached");
  assert.equal(reason(`Error: ${OFFLINE}`), OFFLINE);
  assert.equal(reason(`Error: ${EXPIRED}`), EXPIRED);
  assert.equal(reason("no such column", 400), "no such column");
  assert.equal(refused(new TypeError("Failed to fetch")).reason, "the server cannot be reached");
});

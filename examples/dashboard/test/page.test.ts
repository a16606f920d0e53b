import assert from "node:assert/strict";
import { test } from "node:test";
import { headers } from "../build/pages.ts";
import { format, parse } from "../src/app/location.ts";
import { formatRange, parseRange, windowOf } from "../src/app/range.ts";
import { hubsOf, uptime } from "../src/hubs/hubs.ts";
import { ago, duration, number, relative, staleWords } from "../src/ui/units.ts";

test("an address says the same when it is read back", () => {
  const params = new URLSearchParams({ org: "acme", "q.temperature": "a{b=\"c&d\"} > 1" });
  const back = parse(format(["hubs", "barn/north 1"], params));
  assert.deepEqual(back.path, ["hubs", "barn/north 1"]);
  assert.equal(back.params.toString(), params.toString());
  assert.deepEqual(parse("#/hubs/%E0%A4%A").path, ["hubs", "%E0%A4%A"], "a link that was cut off");
});

test("a range is a length or two moments, and anything else is an hour", () => {
  assert.deepEqual(parseRange("6h"), { last: 21_600 });
  assert.deepEqual(parseRange("100-200"), { from: 100, to: 200 });
  for (const wrong of [null, "", "200-100", "x-y"]) assert.deepEqual(parseRange(wrong), { last: 3600 });
  assert.equal(formatRange({ from: 100.4, to: 200 }), "100-200");
});

test("a window's values stay where they are when it moves", () => {
  const [a, b] = [windowOf({ last: 3600 }, 1_000_003_000), windowOf({ last: 3600 }, 1_000_010_000)];
  assert.equal(a.step, 15);
  for (const { start, end, step } of [a, b]) assert.equal(start % step + (end % step), 0);
});

test("silent hubs come first, the longest silent at the top, and a key that was never used comes last", () => {
  const key = (name: string) => ({ id: name, name, scopes: ["metrics:write"], revoked_at: null }) as never;
  const seen = { lastSeen: new Map([["a", 990], ["b", 100], ["c", 500]]), strips: new Map(), now: 1000 };
  const hubs = hubsOf(seen, [key("d"), key("a")]);
  assert.deepEqual(hubs.map(({ name, state }) => [name, state]), [["b", "silent"], ["c", "silent"], ["a", "reports"], ["d", "new"]]);
});

test("uptime counts from the first data of the day", () => {
  assert.equal(uptime(["none", "none", "all", "none", "some", "all"]), 0.75);
  assert.equal(uptime(["none"]), null);
});

test("numbers have as many digits as mean something, and durations two units", () => {
  assert.equal(number(3.14159, "volts"), "3.14 V");
  assert.equal(number(21.456, "celsius"), "21.5 °C");
  assert.equal(number(null), "none");
  assert.equal(duration(3725), "1 h 2 min");
  assert.equal(duration(59), "59 s");
});

test("the page may connect to the proxy and to Supabase, and to nothing else", () => {
  const text = headers({ supabaseUrl: "https://ref.supabase.co/", supabaseAnonKey: "", proxyUrl: "https://metrics.example.com/base" });
  assert.match(text, /connect-src 'self' https:\/\/metrics\.example\.com https:\/\/ref\.supabase\.co wss:\/\/ref\.supabase\.co;/);
  assert.ok(!text.includes("unsafe"));
});

test("what has happened is never in the future, and what is to come is", () => {
  assert.equal(ago(1_000_000, 1_065_000), "1 min ago");
  assert.equal(ago(1_000_000, 990_000), "just now", "an evaluation after the page's clock moved last");
  assert.equal(relative(1_000_000, 990_000), "in 10 s");
  assert.equal(relative(1_000_000, 1_010_000), "10 s ago");
  assert.equal(staleWords(1_000_000, 1_050_000), "not current: 50 s old");
});

import assert from "node:assert/strict";
import { test } from "node:test";
import { options, shortened } from "../src/charts/chart.tsx";
import { clock } from "../src/ui/units.ts";

/** Just enough of a page for a token's colour. */
function page(): void {
  const probe = { style: {}, remove: () => undefined };
  Object.assign(globalThis, {
    document: { createElement: () => probe, body: { append: () => undefined } },
    getComputedStyle: () => ({ color: "red" }),
    devicePixelRatio: 1,
  });
}

test("a threshold and its words are drawn before the data, and nothing is drawn over the data", () => {
  page();
  const latest = { current: { data: { times: [], columns: [] }, pens: new Map(), lines: [{ value: 30, label: "Too hot" }], label: "" } };
  const { hooks } = options(390, latest);
  const said: string[] = [];
  const canvas = new Proxy({ fillText: (text: string) => said.push(text), measureText: (text: string) => ({ width: text.length * 6 }) } as Record<string, unknown>, {
    get: (known, name) => known[String(name)] ?? (() => undefined),
    set: () => true,
  });
  const plot = { ctx: canvas, bbox: { left: 0, top: 0, width: 390, height: 200 }, valToPos: () => 100 } as never;
  const run = (name: "drawAxes" | "drawSeries" | "draw") => hooks?.[name]?.forEach((hook) => (hook as ((u: never) => void) | undefined)?.(plot));
  run("drawAxes");
  assert.deepEqual(said, ["Too hot 30"]);
  run("drawSeries");
  run("draw");
  assert.equal(said.length, 1);
});

test("the name of a threshold gives way to its value where there is no room", () => {
  const within = (length: number) => (text: string) => text.length <= length;
  assert.equal(shortened("Greenhouse too hot", " 30 °C", within(40)), "Greenhouse too hot 30 °C");
  assert.equal(shortened("Greenhouse too hot", " 30 °C", within(18)), "Greenhouse… 30 °C");
  assert.equal(shortened("Greenhouse too hot", " 30 °C", within(3)), "30 °C");
});

test("a chart's axis and the page have one clock", () => {
  const axis = options(390, { current: { data: { times: [], columns: [] }, pens: new Map(), label: "" } }).axes![0]!;
  const at = Date.UTC(2026, 0, 1, 15, 12) / 1000;
  const values = axis.values as (...asked: unknown[]) => string[];
  assert.deepEqual(values(null, [at], 0, 0, 300), [clock(at * 1000)]);
});

import assert from "node:assert/strict";
import { test } from "node:test";
import { pensOf } from "../src/charts/colours.ts";
import { columnsOf, namesOf, summarise } from "../src/charts/series.ts";

test("what Prometheus leaves out is a gap, and the axis has every step", () => {
  const window = { start: 0, end: 40, step: 10 };
  const { times, columns } = columnsOf([{ metric: { hub: "a" }, values: [[0, "1"], [30, "NaN"], [40, "2"]] }], window);
  assert.deepEqual(times, [0, 10, 20, 30, 40]);
  assert.deepEqual(columns[0]!.values, [1, null, null, null, 2]);
});

test("a series is named by its hub and by what tells it apart", () => {
  assert.deepEqual(namesOf([{ __name__: "m", hub: "a", job: "hub" }, { __name__: "m", hub: "b", job: "hub" }]), ["a", "b"]);
  assert.deepEqual(namesOf([{ hub: "a", pin: "1" }, { hub: "a", pin: "2" }]), ["a pin=1", "a pin=2"]);
  assert.deepEqual(namesOf([{ __name__: "x" }, { __name__: "y" }]), ["x", "y"]);
  assert.deepEqual(namesOf([{}]), ["value"]);
});

test("the last value is none once a series has ended", () => {
  assert.deepEqual(summarise([1, 3, 2, null]), { last: 2, min: 1, max: 3 });
  assert.deepEqual(summarise([1, 3, null, null]), { last: null, min: 1, max: 3 });
  assert.deepEqual(summarise([]), { last: null, min: null, max: null });
});

test("a hub's pen depends on its name, and hubs that share a colour differ in dashes", () => {
  const alone = pensOf(["greenhouse"]).get("greenhouse");
  assert.deepEqual(pensOf(["zebra", "greenhouse"]).get("greenhouse"), alone);
  const names = Array.from({ length: 20 }, (_, at) => `hub-${at}`);
  assert.deepEqual(pensOf(names), pensOf(names.toReversed()));
  const looks = [...pensOf(names.slice(0, 14)).values()].map((pen) => JSON.stringify(pen));
  assert.equal(new Set(looks).size, 14);
});

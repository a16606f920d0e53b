import assert from "node:assert/strict";
import { test } from "node:test";
import { Pens } from "../src/charts/colours.ts";
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
  assert.deepEqual(summarise({ values: [1, 3, 2, null] }), { last: 2, min: 1, max: 3 });
  assert.deepEqual(summarise({ values: [1, 3, null, null] }), { last: null, min: 1, max: 3 });
  assert.deepEqual(summarise({ values: [] }), { last: null, min: null, max: null });
});

test("a hub's colour depends on its name alone, and hubs that share one differ in dashes, for as long as the page is open", () => {
  const names = Array.from({ length: 20 }, (_, at) => `hub-${at}`);
  const all = new Pens().of(names);
  for (const name of names) assert.equal(new Pens().of([name]).get(name)!.colour, all.get(name)!.colour, name);
  assert.deepEqual(all, new Pens().of(names.toReversed()));
  const looks = [...all.values()].map((pen) => JSON.stringify(pen));
  assert.equal(new Set(looks.slice(0, 12)).size, 12);
  assert.ok(new Set([...all.values()].map(({ colour }) => colour)).size >= 6, "few names share a colour");
  // A chart of some of them, then of all, and then of one more that sorts before.
  const page = new Pens();
  const some = page.of(names.slice(10));
  for (const later of [page.of(names), page.of(["a", ...names])]) {
    for (const [name, pen] of some) assert.deepEqual(later.get(name), pen, name);
  }
});

test("the last value is the one at the end of the range, whatever the step: a hub that has gone silent has none", () => {
  const window = { start: 0, end: 7200, step: 3600 };
  const stream = (hub: string) => ({ metric: { hub }, values: [[0, "1"], [3600, "2"], [7200, "3"]] as [number, string][] });
  const { columns } = columnsOf([stream("reports"), stream("silent")], window, [{ metric: { hub: "reports" }, value: [9000, "4"] }]);
  assert.deepEqual(columns.map((column) => [column.name, summarise(column).last]), [["reports", 4], ["silent", null]]);
});

import assert from "node:assert/strict";
import { test } from "node:test";
import { tokenAt } from "../src/promql/token.ts";
import { faultsOf, named } from "../src/rules/reason.ts";
import { sameQuantity, thresholdOf } from "../src/rules/threshold.ts";
import { durationSeconds, firingSpans, union } from "../src/rules/would-fire.ts";
import { isQuick } from "./quick.ts";

test("a threshold is the comparison with a number that an expression consists of", () => {
  assert.deepEqual(thresholdOf("temperature > 30"), { left: "temperature", operator: ">", value: 30 });
  assert.deepEqual(thresholdOf('rate(x{a=">= 1"}[5m])>=-1.5e3'), { left: 'rate(x{a=">= 1"}[5m])', operator: ">=", value: -1500 });
  assert.deepEqual(thresholdOf("avg by (hub) (t > 2) > 3")?.left, "avg by (hub) (t > 2)");
  for (const other of ["temperature", "a > 1 and b > 2", "a > b", "a > bool 1", "1 < a > 2", "avg(t > 2", ""]) {
    assert.equal(thresholdOf(other), null, other);
  }
});

test("a threshold is drawn only in a chart of the same quantity", () => {
  assert.ok(sameQuantity('temperature{hub="a"}', "temperature"));
  assert.ok(sameQuantity("avg by (hub) (avg_over_time(temperature[10m]))", "temperature"));
  assert.ok(!sameQuantity("rate(temperature[5m])", "temperature"));
  assert.ok(!sameQuantity("humidity", "temperature"));
  assert.ok(!sameQuantity("a + b", "a + b"));
  assert.ok(sameQuantity('(max(last_over_time( temperature {note="}"} [5m])) without (hub))', "temperature"));
  for (const other of ["", "(", "avg", "avg by (hub)", "avg temperature", "temperature temperature", "1"]) assert.ok(!sameQuantity(other, other), other);
});

test("the expression of a rule cannot freeze the page", () => {
  for (const expr of [`a${" ".repeat(50_000)}x`, `a${")".repeat(50_000)}x`, `${"(".repeat(50_000)}x`, `a > ${"1".repeat(50_000)}x`, "a > ".repeat(20_000), `"${"a".repeat(50_000)}`]) {
    isQuick(() => thresholdOf(expr));
    isQuick(() => thresholdOf(`${expr} > 1`));
    isQuick(() => sameQuantity(expr, expr));
  }
});

test("durations are Prometheus'", () => {
  assert.equal(durationSeconds("1h30m"), 5400);
  assert.equal(durationSeconds("500ms"), 0.5);
  assert.equal(durationSeconds(""), 0);
  assert.equal(durationSeconds("0s"), 0);
  for (const wrong of ["5", "m", "5 m", "1.5h", "-1m"]) assert.equal(durationSeconds(wrong), null, wrong);
});

test("a rule fires once its series was there for as long as `for`, and each gap begins anew", () => {
  const columns = { times: [0, 60, 120, 180, 240, 300, 360], columns: [{ name: "a", labels: {}, values: [1, 1, 1, null, 1, 1, 1] }] };
  assert.deepEqual(firingSpans(columns, 60).get("a"), [{ from: 60, to: 120 }, { from: 300, to: 360 }]);
  assert.deepEqual(firingSpans(columns, 0).get("a"), [{ from: 0, to: 120 }, { from: 240, to: 360 }]);
  assert.equal(firingSpans(columns, 600).has("a"), false);
  assert.deepEqual(union([[{ from: 5, to: 9 }], [{ from: 1, to: 6 }, { from: 20, to: 21 }]]), [{ from: 1, to: 9 }, { from: 20, to: 21 }]);
});

test("a reason points to the characters that it is about", () => {
  const expr = "sum by (hub (temperature) > 90";
  const { at, words } = faultsOf('expr, line 1, column 13: unexpected "("', expr)[0]!;
  assert.equal(words, 'unexpected "("');
  assert.equal(expr.slice(...tokenAt(expr, at!)), "(");
  assert.equal(faultsOf("expr, line 2, column 3: no", "up +\n* 2")[0]!.at, 7);
  assert.equal(faultsOf("expr: 2:3: holds a tabulator", "up +\n* 2")[0]!.at, 7);
  // A character beyond the basic plane is one for the proxy and two for an editor.
  assert.equal(faultsOf("expr, line 1, column 3: no", "😀ab")[0]!.at, 3);
  assert.deepEqual(faultsOf("the last evaluation failed", expr), [{ field: null, at: null, words: "the last evaluation failed" }]);
  assert.deepEqual(faultsOf("", expr), []);
  assert.equal("avg(temp > 5".slice(...tokenAt("avg(temp > 5", 4)), "temp");
  assert.equal("avg(temp".slice(...tokenAt("avg(temp", 8)), "p");
});

test("each fault is said at the field that it is about, and never by the column's name", () => {
  const reason =
    'name: is empty; name the alert; expr: is empty; write a PromQL expression; for_duration: "x" is no duration; write for example 30s; ' +
    'keep_firing_for: "1.5h" is no duration; write for example 30s; evaluation_interval: is 0s; should be from 1s to 1d; rule_group: is 152 bytes long; at most 150; ' +
    'labels: label "a-b" is not a valid name; use letters; labels: are 65; at most 64; annotations: annotation "a" is an object; should be a string';
  const faults = faultsOf(reason, "");
  assert.deepEqual(faults.map(({ field, words }) => [field, words]), [
    ["name", "the name is empty; name the alert"],
    ["expr", "the expression is empty; write a PromQL expression"],
    ["for_duration", '"x" is no duration; write for example 30s'],
    ["keep_firing_for", '"1.5h" is no duration; write for example 30s'],
    ["evaluation_interval", "“Every” is 0s; should be from 1s to 1d"],
    ["rule_group", "the group is 152 bytes long; at most 150"],
    ["labels", 'label "a-b" is not a valid name; use letters'],
    ["labels", "the labels are 65; at most 64"],
    ["annotations", 'annotation "a" is an object; should be a string'],
  ]);
  assert.equal(named(faults[2]!), '“For”: "x" is no duration; write for example 30s');
  assert.equal(named(faults[4]!), "“Every” is 0s; should be from 1s to 1d");
});

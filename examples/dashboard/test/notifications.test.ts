import assert from "node:assert/strict";
import { test } from "node:test";
import type { Channel, Route, Rule } from "../src/data/rows.ts";
import { whatGoes } from "../src/notifications/notifications.tsx";
import { reasonWords } from "../src/notifications/reason.ts";
import { moved } from "../src/notifications/route-list.tsx";

const route = (id: string, position: number, channel_id = "page", matchers: string[] = []) => ({ id, position, channel_id, matchers, enabled: true, continue_matching: false }) as unknown as Route;
const channel = (id: string, is_default = false) => ({ id, name: id, enabled: true, is_default }) as Channel;
const rule = (name: string, labels: Record<string, string> = {}) => ({ name, labels, enabled: true }) as Rule;

test("a route that moves changes the positions that have to change", () => {
  assert.deepEqual(moved([route("a", 1), route("b", 2), route("c", 3)], 2, -1), [{ id: "c", position: 2 }, { id: "b", position: 3 }]);
  assert.deepEqual(moved([route("a", 0), route("b", 0)], 1, -1), [{ id: "b", position: 1 }, { id: "a", position: 2 }], "those of one position, by their age");
});

test("what a deletion takes with it, and who is not notified any more, is said", () => {
  const data = { channels: [channel("page"), channel("mail", true)], routes: [route("1", 1, "page", ['severity="critical"'])], rules: [rule("Hot", { severity: "critical" }), rule("Wet", { severity: "warning" }), rule("Dry")] };
  assert.equal(whatGoes(data, { channel: "page" }), "One route goes with it. Every rule that notifies somebody now still does.");
  assert.equal(whatGoes(data, { channel: "mail" }), "Alerts of Wet will notify nobody. Alerts of Dry may notify nobody, depending on the labels of their series.");
  assert.equal(whatGoes(data, { route: "1" }), "Every rule that notifies somebody now still does.");
});

test("a reason calls columns what the form calls them", () => {
  assert.equal(reasonWords("group_interval: is 10ms; should be from 1s to 30d"), "Changes every: is 10ms; should be from 1s to 30d");
  assert.equal(reasonWords("secrets.url: should begin with https://", "slack"), "Address of the incoming webhook: should begin with https://");
  assert.equal(reasonWords("settings.to: is empty", "webhook"), "settings.to: is empty");
});

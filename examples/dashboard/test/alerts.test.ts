import assert from "node:assert/strict";
import { test } from "node:test";
import { groupsOf } from "../src/alerts/merge.ts";
import type { AlertGroup, ManagedAlert, Silence } from "../src/data/alertmanager.ts";
import { allMatch, formatMatcher, parseMatcher } from "../src/data/matchers.ts";
import type { AlertEvent, Channel, Route } from "../src/data/rows.ts";
import { landings } from "../src/notifications/reach.ts";
import { isQuick } from "./quick.ts";

test("matchers are read as Alertmanager reads them", () => {
  assert.deepEqual(parseMatcher('team=~"a|b"'), { name: "team", value: "a|b", isRegex: true, isEqual: true });
  assert.deepEqual(parseMatcher('note!="say \\"hi\\""'), { name: "note", value: 'say "hi"', isRegex: false, isEqual: false });
  assert.equal(parseMatcher("team"), null);
  assert.equal(formatMatcher(parseMatcher("team!~x")!), 'team!~"x"');
  assert.ok(allMatch([parseMatcher('team=~"a|b"')!], { team: "b" }));
  assert.ok(!allMatch([parseMatcher('team=~"a|b"')!], { team: "ab" }));
  assert.ok(allMatch([parseMatcher('team=""')!], {}), "an absent label is empty");
});

test("plain patterns are judged as Alertmanager judges them, and others are not judged", () => {
  const judged = (pattern: string, value: string, operator = "=~") => allMatch([parseMatcher(`hub${operator}${JSON.stringify(pattern)}`)!], { hub: value });
  for (const [pattern, yes, no] of [
    ["a|b", "b", "ab"],
    ["barn-.*", "barn-north", "a barn-"],
    [".*-north|x", "barn-north", "barn-north-2"],
    [".+north.*south", "a north and south", "north south"],
    ["a.*a", "aba", "a"],
    ["a\\.b", "a.b", "axb"],
    ["", "", "a"],
    ["|a", "", "b"],
  ] as const) {
    assert.equal(judged(pattern, yes), true, pattern);
    assert.equal(judged(pattern, no), false, pattern);
    assert.equal(judged(pattern, yes, "!~"), false, pattern);
  }
  for (const pattern of ["(a)", "a.b", "[a]", "a+", "(?i)a", "a{2}", "^a", "a.*?", "\\w", "a\\", "("]) assert.equal(judged(pattern, "a"), null, pattern);
  assert.equal(judged(".*", "two\nlines"), null);
  assert.equal(allMatch([parseMatcher('a=~"(b)"')!, parseMatcher("c=d")!], { a: "b" }), false);
  assert.equal(allMatch([parseMatcher("constructor=x")!], {}), false);
});

test("a silence or a route cannot freeze the page", () => {
  const hub = `${"a".repeat(34)}!`;
  const silence = (matcher: string) => ({ id: "s", matchers: [parseMatcher(matcher)], status: { state: "active" } }) as Silence;
  for (const pattern of ["(a+)+", "(a|aa)+", `${"a*".repeat(40)}b`, ".*".repeat(400), `${".*a".repeat(400)}b`]) {
    isQuick(() => groupsOf([event("a", { hub })], [], [silence(`hub=~"${pattern}"`)], []));
    isQuick(() => landings({ hub }, [route("1", "page", [`hub=~"${pattern}"`])], [channel("page")]));
  }
  isQuick(() => parseMatcher(`a=${" ".repeat(50_000)}x y`));
});

test("a silence with a pattern is taken from the Alertmanager's answer", () => {
  const silence = { id: "s", matchers: [parseMatcher('hub=~"(x|y)"')], status: { state: "active" } } as Silence;
  const silenced = (by: string[]) => {
    const alert = { fingerprint: "a", status: { silencedBy: by } } as ManagedAlert;
    const groups: AlertGroup[] = [{ labels: {}, receiver: { name: "c" }, alerts: [alert] }];
    return groupsOf([event("a", { hub: "x" })], groups, [silence], [])[0]!.alerts[0]!.silence;
  };
  assert.equal(silenced(["s"]), silence);
  assert.equal(silenced(["of another"]), undefined);
});

test("whether a pattern of a route matches is left open, and what is after it too", () => {
  const routes = [route("1", "page", ['severity=~"(critical)"']), route("2", "mail", ["severity=critical"])];
  const found = landings({ severity: "critical" }, routes, [channel("page"), channel("mail")], true);
  assert.deepEqual(found.map(({ channel, certainty }) => [channel, certainty]), [["page", "maybe"], ["mail", "maybe"]]);
});

const channel = (id: string, is_default = false, enabled = true) => ({ id, is_default, enabled }) as Channel;
const route = (id: string, channel_id: string, matchers: string[], continue_matching = false) => ({ id, channel_id, matchers, continue_matching, enabled: true }) as Route;

test("the first route that matches takes an alert, and the defaults get the rest", () => {
  const channels = [channel("page"), channel("mail", true), channel("off", true, false)];
  const routes = [route("1", "page", ['severity="critical"'])];
  assert.deepEqual(landings({ severity: "critical" }, routes, channels), [{ channel: "page", certainty: "yes", route: "1" }]);
  assert.deepEqual(landings({ severity: "info" }, routes, channels), [{ channel: "mail", certainty: "yes", route: null }]);
  assert.deepEqual(landings({}, [], [channel("page")]), []);
});

test("an alert that a route passes on goes to the next routes and to the defaults", () => {
  const found = landings({ a: "1" }, [route("1", "page", ['a="1"'], true)], [channel("page"), channel("mail", true)]);
  assert.deepEqual(found.map(({ channel }) => channel), ["page", "mail"]);
});

test("a matcher on a label that only series have may match", () => {
  const found = landings({ alertname: "Hot" }, [route("1", "page", ['hub="a"'])], [channel("page"), channel("mail", true)], true);
  assert.deepEqual(found.map(({ channel, certainty }) => [channel, certainty]), [["page", "maybe"], ["mail", "maybe"]]);
});

const event = (id: string, labels: Record<string, string>, started_at = "2026-01-01T00:00:00Z") => ({ id, fingerprint: id, labels, state: "firing", started_at }) as AlertEvent;

test("alerts are grouped as they are sent, once for two channels, and what is not sent yet is shown too", () => {
  const managed = (fingerprint: string) => ({ fingerprint, status: { silencedBy: [] as string[] } }) as unknown as AlertGroup["alerts"][number];
  const groups: AlertGroup[] = ["c1", "c2"].map((name) => ({ labels: { alertname: "Hot" }, receiver: { name }, alerts: [managed("a"), managed("gone")] }));
  const [first, second] = groupsOf([event("a", { hub: "x" }), event("b", { hub: "y" }, "2025-01-01T00:00:00Z")], groups, [], []);
  assert.deepEqual(first!.receivers, ["c1", "c2"]);
  assert.deepEqual(first!.alerts.map((alert) => alert.event.id), ["a"]);
  assert.equal(second!.managed, false);
  assert.deepEqual(second!.alerts.map((alert) => alert.event.id), ["b"]);
});

test("a silence shows before the Alertmanager has applied it", () => {
  const silence = { matchers: [parseMatcher('hub="x"')], status: { state: "active" } } as Silence;
  const expired = { ...silence, status: { state: "expired" } } as Silence;
  assert.equal(groupsOf([event("a", { hub: "x" })], [], [expired, silence], [])[0]!.alerts[0]!.silence, silence);
  assert.equal(groupsOf([event("a", { hub: "x" })], [], [expired], [])[0]!.alerts[0]!.silence, undefined);
});

test("as long as the Alertmanager has not answered, nothing is said of what it has", () => {
  const ids = (groups: AlertGroup[] | undefined) => groupsOf([event("a", { hub: "x" })], groups, [], []).map(({ id }) => id);
  assert.deepEqual(ids(undefined), ["unknown"]);
  assert.deepEqual(ids([]), ["rest"]);
});

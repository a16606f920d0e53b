// Alert rules: states with reasons, what a sync would change, the sync, and the deletion guard.

import { chip, chips, confirm, copy, dialog, diff, facts, h, number, part, plural, problem, put, say, time } from "./dom.js";
import { api, path } from "./session.js";
import { link, note } from "./place.js";
import { table } from "./table.js";

export function rules(access, params, page) {
  const [organisation, choice] = page.organisation("rules", params);
  return organisation ? ofOne(organisation, params, page, choice) : ofAll(page, choice);
}

function ofAll(page, choice) {
  const outcome = h("div");
  const all = part(() => api("rules/status"), (status, reload) => [
    status.guard && guardPanel(status.guard, "all organisations", "rules", "all organisations", outcome, reload),
    facts([
      ["Leader", status.leader.is_leading ? `${status.leader.holder}` : "none now"],
      ["Rules", chips({ live: status.live, stored: status.stored, failing: status.failing, "not live": status.not_live })],
      ["Full resync", time(status.full_resync_at)],
      status.full_resync?.problem && ["Its problem", status.full_resync.problem],
    ]),
    table(status.organisations, [
      { name: "Organisation", show: (one) => h("a", { href: link("rules", { organisation: one.organisation }) }, one.organisation), text: (one) => one.organisation, sort: true },
      { name: "Rules", show: (one) => chips({ live: one.live, stored: one.stored, failing: one.failing, "not live": one.not_live }), sort: (one) => one.failing + one.not_live },
      { name: "Sync", wide: true, show: (one) => (one.guard ? chip("held", `held: ${one.guard.reason}`) : one.problem ? chip("error", one.problem) : chip("in sync")), text: (one) => one.guard?.reason ?? one.problem ?? "in sync" },
      { name: "Last success", show: (one) => time(one.last_success), sort: (one) => one.last_success ?? "" },
    ], { placeholder: "Filter organisations", empty: "No organisation has rules in Mimir yet." }),
    !status.complete && h("p", { class: "muted" }, "Only the first 1000 are listed; those with a problem come first."),
  ]);
  return [
    page.head("Rules", "All organisations. Choose one to see its rules.", choice,
      h("button", { type: "button", onclick: () => sync("rules/sync", outcome, () => all.reload(true)) }, "Sync all")),
    outcome, all,
  ];
}

function ofOne(organisation, params, page, choice) {
  const at = `${path("organisations", organisation)}/rules`;
  const outcome = h("div", { class: "stack" });
  const list = part(() => api(at), (found, reload) => {
    const states = {};
    for (const rule of found.rules) states[rule.state] = (states[rule.state] ?? 0) + 1;
    return [
      found.sync.guard && guardPanel(found.sync.guard, organisation, at, organisation, outcome, reload),
      found.sync.problem && h("div", { class: "panel warn" }, h("h2", null, "Not in sync"), h("p", null, found.sync.problem), h("p", { class: "small muted" }, "Since ", time(found.sync.problem_since))),
      facts([["Rules", chips(states)], ["Tenant", copy(found.tenant)], ["Last write", time(found.sync.synced_at)]]),
      table([...found.rules].sort((a, b) => weight(a) - weight(b)), [
        { name: "Rule", wide: true, show: (rule) => [h("button", { class: "link", type: "button", onclick: () => ruleDialog(rule) }, rule.name || "without a name"), h("div", { class: "small muted" }, rule.rule_group ?? "default group")], text: (rule) => `${rule.name} ${rule.rule_group ?? ""}`, sort: true },
        { name: "State", show: (rule) => chip(rule.state), text: (rule) => rule.state, sort: true },
        { name: "Reason", wide: true, show: (rule) => [rule.reason, rule.notifies === false && h("div", null, chip("warning", "notifies nobody")), rule.warning && !rule.reason.includes(rule.warning) && h("div", { class: "muted" }, `Perhaps: ${rule.warning}`)], text: (rule) => `${rule.reason} ${rule.notifies === false ? "notifies nobody" : ""}` },
        { name: "Evaluated", show: (rule) => time(rule.evaluated_at), sort: (rule) => rule.evaluated_at ?? "" },
      ], { placeholder: "Filter by name, state or reason", filter: params.get("filter") ?? "", onfilter: (text) => note("filter", text), empty: "There are no rules. Each is a row in the table alert_rule; the dashboard's editor writes them, too." }),
    ];
  });
  const shown = async () => {
    put(outcome, h("p", { class: "muted" }, "Comparing with Mimir…"));
    try {
      put(outcome, diffPanel(await api(`${at}/diff`)));
    } catch (error) {
      put(outcome, problem(error, shown));
    }
  };
  return [
    page.head("Rules", null, choice,
      h("button", { type: "button", onclick: shown }, "Show diff"),
      h("button", { type: "button", class: "primary", onclick: () => sync(`${at}/sync`, outcome, () => list.reload(true)) }, "Sync now")),
    outcome, list,
  ];
}

// What needs somebody comes first.
const ORDER = ["failing", "invalid", "error", "over_limit", "pending", "stored", "live", "disabled"];
const weight = (rule) => ORDER.indexOf(rule.state) - (rule.state === "live" && rule.notifies === false ? 1.5 : 0);

function ruleDialog(rule) {
  dialog(rule.name ?? "Rule", (close) => h("div", null,
    h("h1", null, rule.name || "without a name"),
    facts([
      ["State", chip(rule.state)],
      rule.reason && ["Reason", rule.reason],
      rule.warning && !rule.reason.includes(rule.warning) && ["Our parser thinks", rule.warning],
      ["Expression", rule.expr ? h("pre", { tabindex: "0" }, rule.expr) : "none"],
      ["Group", rule.rule_group ?? "default"],
      ["Interval", rule.evaluation_interval ?? "default"],
      ["In Mimir since", time(rule.stored_since)],
      ["Last evaluation", time(rule.evaluated_at)],
      ["Notifies", rule.notifies === null ? "not known" : rule.notifies ? "a channel" : "nobody: no channel gets its alerts"],
      ["Row", copy(rule.id)],
    ]),
    h("div", { class: "row end" }, h("button", { type: "button", onclick: close }, "Close"))));
}

function diffPanel(found) {
  const reasons = [...found.not_live, ...(found.not_evaluated ?? [])];
  return h("section", { class: "panel" },
    h("h2", null, found.in_sync ? "Mimir has what the rows say" : `A sync would change ${plural(found.changes.length, "group")}`),
    found.guard && h("p", null, chip("held", `It would be held back: ${found.guard}`)),
    found.vanishing.length > 0 && h("p", null, `${plural(found.vanishing.length, "rule")} would vanish: ${names(found.vanishing)}`),
    found.diff && diff(found.diff),
    reasons.length > 0 && h("ul", null, reasons.map((one) => h("li", null, chip(one.state), " ", copy(one.id), " ", one.reason))));
}

function names(held) {
  const some = held.slice(0, 5).map((rule) => `${rule.name} (${rule.why})`).join(", ");
  return held.length > 5 ? `${some} and ${number(held.length - 5)} more` : some;
}

/** What the guard holds, and the way to confirm it: numbers, and the name typed. */
function guardPanel(guard, about, at, name, outcome, reload) {
  const count = guard.rules?.length ?? 0;
  const ask = () => confirm({
    title: "Delete rules in Mimir",
    says: h("div", { class: "stack" },
      h("p", null, count ? `${plural(count, "rule")} of ${about} will be deleted in Mimir. Nobody is alerted by them any more.` : `${guard.reason}. This will be done in Mimir, and nobody is alerted by these rules any more.`),
      h("p", { class: "muted" }, guard.reason),
      count > 0 && h("ul", null, guard.rules.slice(0, 20).map((rule) => h("li", null, `${rule.name} in ${rule.group}: ${rule.why}`)), count > 20 && h("li", null, `and ${number(count - 20)} more`))),
    name, action: count ? `Delete ${plural(count, "rule")}` : "Confirm the deletion",
    run: () => api(`${at}/guard/confirm`, { method: "POST", body: { guard: guard.id } }),
    done: (result) => follow(result, outcome, () => reload(true)),
  });
  return h("section", { class: "panel warn" },
    h("h2", null, "A deletion is held back"),
    h("p", null, guard.reason),
    count > 0 && h("p", { class: "muted" }, names(guard.rules)),
    h("p", { class: "small muted" }, "Since ", time(guard.since, "now"), ". If it is a mistake, put the rows back: it then ends by itself."),
    h("div", null, h("button", { class: "danger", type: "button", onclick: ask }, "Confirm the deletion…")));
}

async function sync(at, outcome, done) {
  put(outcome, h("div", { class: "panel" }, h("h2", null, "Syncing…"), h("progress", { "aria-label": "Progress of the sync" })));
  try {
    await follow(await api(at, { method: "POST" }), outcome, done);
  } catch (error) {
    put(outcome, problem(error, () => sync(at, outcome, done)));
  }
}

/** Follows a sync to its end. What it came to stays on the page. */
async function follow(progress, outcome, done) {
  const began = Date.now();
  try {
    while (progress.state !== "done" && Date.now() - began < 600_000) {
      put(outcome, h("div", { class: "panel", role: "status" },
        h("h2", null, progress.state === "waiting" ? "Waiting for the leader" : `Syncing: ${number(progress.done)} of ${plural(progress.total, "organisation")}`),
        h("progress", { "aria-label": "Progress of the sync", max: progress.total || 1, value: progress.done })));
      await new Promise((resume) => { setTimeout(resume, 700); });
      // Whoever left the view, or signed out, does not ask any more.
      if (!outcome.isConnected) return;
      progress = await api(progress.poll.replace(/^\/admin\//, ""));
    }
    const { problem: wrong, guard, outcomes, rules: counts } = progress.outcome;
    put(outcome, h("section", { class: `panel ${wrong || guard ? "warn" : ""}`, role: "status" },
      h("div", { class: "row" }, h("h2", null, progress.state === "done" ? "The sync is done" : "The sync still runs"), h("button", { type: "button", class: "link", onclick: () => put(outcome) }, "Hide")),
      facts([
        wrong && ["Problem", wrong],
        guard && ["Held back", guard.reason],
        outcomes && ["Organisations", chips(outcomes)],
        counts && ["Rules", chips(counts)],
        ["Ended", time(progress.finished_at, "not yet")],
      ])));
    done?.();
  } catch (error) {
    put(outcome, problem(error));
    say("The sync goes on without this page.");
  }
}

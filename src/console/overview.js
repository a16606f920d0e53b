// The first question of an operator: is it us? And what a member or an administrator may do here.

import { bones, chip, facts, h, number, part, plural, seconds, time } from "./dom.js";
import { api } from "./session.js";
import { every, link } from "./place.js";
import { table } from "./table.js";

export function overview(access, params, page) {
  return access.kind === "operator" ? ofOperator(page) : ofMember(access, page);
}

const SCOPES = {
  "metrics:read": "read metrics",
  "metrics:write": "write metrics",
  "rules:read": "read alert rules and alerts",
  "alerts:read": "read silences and notifications",
  "alerts:write": "create and end silences",
  admin: "administer: device keys, alert rules, channels and members",
};

function ofMember(access, page) {
  const { whoami } = access;
  const own = whoami.organisations;
  const isAdministrator = access.kind === "administrator";
  return [
    page.head("Overview", isAdministrator
      ? "You administer the organisations that say so below. What concerns all organisations is the operators' and is not shown."
      : "You are a member. This page shows what you may do. Device keys, rules and channels are shown to administrators."),
    whoami.organisations_unknown && h("div", { class: "panel warn" }, h("h2", null, "Your organisations are not known now"), h("p", null, whoami.organisations_unknown)),
    own?.length === 0 && h("div", { class: "panel" }, h("h2", null, "You are in no organisation"), h("p", null, "An administrator of an organisation can add you to it.")),
    h("div", { class: "cards" }, (own ?? []).map((one) => {
      const administers = one.scopes.includes("admin");
      return h("section", { class: "panel" },
        h("h2", { class: "mono" }, one.id),
        facts([
          ["You are", one.role ?? (whoami.principal.kind === "device" ? "a device" : "a member")],
          ["You may", one.scopes.length ? h("ul", null, one.scopes.map((scope) => h("li", null, SCOPES[scope] ?? scope))) : "nothing"],
          ["Tenant", one.tenant === one.id ? "the same" : one.tenant],
          ["Known from", one.source],
        ]),
        administers && h("div", { class: "row" }, ["rules", "devices", "channels"].map((view) => h("a", { href: link(view, { organisation: one.id }) }, view[0].toUpperCase() + view.slice(1)))));
    })),
    facts([["Signed in as", `${whoami.principal.kind} ${whoami.principal.id}`], ["Credential", whoami.credential], ["Memberships", whoami.memberships]]),
  ];
}

function ofOperator(page) {
  const status = part(() => Promise.allSettled([api("status"), api("rules/status"), api("channels/status")]), show, () => [bones(1), h("div", { class: "facts" }, Array.from({ length: 8 }, () => bones(1, "tall")))]);
  every(15_000, () => status.reload(true));
  return [page.head("Overview", "How this copy of the proxy is. Refreshes every 15 s while it is seen."), status];
}

const value = (result) => (result.status === "fulfilled" ? result.value : null);

function show([status, rules, channels]) {
  if (status.status === "rejected") throw status.reason;
  const now = status.value;
  const ruleState = value(rules);
  const channelState = value(channels);
  const telemetry = now.traffic.surfaces.filter((one) => !["admin", "none"].includes(one.surface));
  const sum = (name) => telemetry.reduce((all, one) => all + one[name], 0);
  const [requests, failed, rejected] = ["requests", "failed", "rejected"].map(sum);
  const share = requests ? failed / requests : 0;
  const slowest = telemetry.filter((one) => one.p99_seconds !== null).sort((a, b) => b.p99_seconds - a.p99_seconds)[0];
  const held = (ruleState?.organisations ?? []).filter((one) => one.guard).length + (ruleState?.guard ? 1 : 0)
    + (channelState?.organisations ?? []).filter((one) => one.guard).length;
  const troubled = (ruleState?.organisations ?? []).filter((one) => one.problem);
  const troubledChannels = (channelState?.organisations ?? []).filter((one) => one.problem);
  const database = now.database;
  const faults = [
    share > 0.01 && `${percent(share)} of the requests of the last ${seconds(now.traffic.window_seconds)} failed`,
    now.upstreams.instances === 0 && "no instance of Mimir is known",
    now.upstreams.ejected > 0 && `${now.upstreams.ejected} of ${plural(now.upstreams.instances, "instance")} of Mimir ${now.upstreams.ejected === 1 ? "is" : "are"} ejected`,
    now.keys.is_configured && !now.keys.is_trusted && "the key set is too old to be used, or was never fetched: tokens are answered with 503",
    now.keys.problem && `the key set could not be fetched: ${now.keys.problem}`,
    database && !database.answers && `the database does not answer: ${database.problem}`,
    database?.answers && !database.notifications_arrive && "notifications of the database do not arrive: changes apply when the cache expires",
    now.leader && now.leader.is_leading === false && "no copy leads: rules and channels are not synced",
    troubled.length > 0 && `the rules of ${plural(troubled.length, "organisation")} cannot be synced`,
    troubledChannels.length > 0 && `the channels of ${plural(troubledChannels.length, "organisation")} cannot be synced`,
  ].filter(Boolean);
  const fact = (name, state, text, ...more) => h("section", { class: "fact" },
    h("h2", { class: "small muted" }, name), h("div", { class: `value ${typeof text === "string" && text.length > 16 ? "text" : ""}` }, text), chip(...state), h("div", { class: "small muted" }, more));
  return [
    h("section", { class: `panel ${faults.length ? "crit" : ""}` },
      h("div", { class: "row" }, h("h2", null, "Is it us?"), faults.length ? chip("critical", "Something is wrong here") : chip("ok", "Nothing is wrong on this copy")),
      faults.length ? h("ul", null, faults.map((fault) => h("li", null, fault)))
        : h("p", { class: "muted" }, requests ? ["Requests are served, Mimir and the database answer. If somebody has trouble all the same, look at ", h("a", { href: link("refusals") }, "Refusals"), "."] : "Mimir and the database answer. No request for telemetry came in this time.")),
    h("div", { class: "facts" },
      fact("Failed requests", share > 0.01 ? ["critical", "too many"] : ["ok"], requests ? percent(share) : "none",
        `${number(failed)} of ${number(requests)} for telemetry in ${seconds(now.traffic.window_seconds)}; ${number(rejected)} of these rejected`),
      fact("Slowest surface, p99", slowest?.p99_seconds > 10 ? ["warning", "slow"] : ["ok"], slowest ? seconds(slowest.p99_seconds) : "no requests", slowest ? `${slowest.surface}; half within ${seconds(slowest.p50_seconds)}` : ""),
      fact("Mimir's instances", now.upstreams.ejected ? ["ejected", `${now.upstreams.ejected} ejected`] : now.upstreams.instances ? ["ok"] : ["critical", "none"], `${now.upstreams.instances - now.upstreams.ejected} of ${now.upstreams.instances}`,
        `${plural(now.upstreams.in_flight, "request")} in flight; last change: `, time(now.upstreams.changed_at, "none")),
      fact("Key set", !now.keys.is_configured ? ["none", "shared secret only"] : now.keys.is_trusted && !now.keys.problem ? ["ok"] : ["critical", now.keys.is_trusted ? "not fetched" : "not used"], now.keys.age_seconds === null ? "never fetched" : `${seconds(now.keys.age_seconds)} old`, plural(now.keys.keys, "key")),
      database ? fact("Database", database.answers ? (database.notifications_arrive ? ["ok"] : ["warning", "no notifications"]) : ["critical", "away"], database.answers ? seconds(database.answered_in_seconds) : "no answer", `${database.address}; revocations read ${database.revocations_age_seconds === null ? "never" : `${seconds(database.revocations_age_seconds)} ago`}`)
        : fact("Database", ["none", "not used"], "none", "tokens alone decide"),
      now.leader ? fact("Leader", now.leader.is_leading === false ? ["critical", "none leads"] : ["ok", now.leader.is_this_copy ? "this copy" : "another copy"], now.leader.holder, "since ", time(now.leader.since, "unknown"))
        : fact("Leader", ["none", now.syncs_rules ? "unknown" : "rules are not synced"], "none"),
      ruleState && fact("Rules", ruleState.failing + ruleState.not_live ? ["warning", `${ruleState.failing} failing, ${ruleState.not_live} not live`] : ["ok"], `${number(ruleState.live)} live`, `${number(ruleState.stored)} stored; full resync `, time(ruleState.full_resync_at)),
      ruleState && fact("Deletion guard", held ? ["held", "waits for a confirmation"] : ["ok", "holds nothing"], held ? number(held) : "clear", h("a", { href: link("rules") }, "Rules")),
      fact("Build", ["ok", `up ${seconds((Date.now() - new Date(now.started_at)) / 1000)}`], now.version, `commit ${now.commit}; ${now.copy}; ${plural(now.workers, "worker")}`)),
    h("h2", null, `Traffic of the last ${seconds(now.traffic.window_seconds)}`),
    table(now.traffic.surfaces, [
      { name: "Surface", show: (one) => (one.surface === "none" ? "no route" : one.surface), text: (one) => one.surface, sort: true },
      { name: "Requests", number: true, show: (one) => number(one.requests), sort: (one) => one.requests },
      { name: "Failed", number: true, show: (one) => number(one.failed), sort: (one) => one.failed },
      { name: "Rejected", number: true, show: (one) => number(one.rejected), sort: (one) => one.rejected },
      { name: "p50", number: true, show: (one) => (one.p50_seconds === null ? "–" : seconds(one.p50_seconds)) },
      { name: "p99", number: true, show: (one) => (one.p99_seconds === null ? "–" : seconds(one.p99_seconds)) },
    ], { placeholder: "Filter surfaces" }),
    troubled.length > 0 && h("section", { class: "stack" }, h("h2", null, "Organisations whose rules cannot be synced"), table(troubled, [
      { name: "Organisation", show: (one) => h("a", { href: link("rules", { organisation: one.organisation }) }, one.organisation), text: (one) => one.organisation },
      { name: "Problem", wide: true, show: (one) => one.problem, text: (one) => one.problem },
      { name: "Since", show: (one) => time(one.problem_since) },
    ])),
    [rules, channels].some((one) => one.status === "rejected" && one.reason.status !== 404) && h("p", { class: "muted" }, "The state of rules or channels could not be read."),
  ];
}

const percent = (share) => `${Number((share * 100).toPrecision(2))} %`;

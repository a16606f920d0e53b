// How this copy is: instances, keys, limits, refusals, configuration.

import { bytes, chip, copy, facts, h, number, part, seconds, time } from "./dom.js";
import { api, path, query } from "./session.js";
import { every, link, note } from "./place.js";
import { table } from "./table.js";

const remembered = (params) => ({ filter: params.get("filter") ?? "", onfilter: (text) => note("filter", text) });

export function upstreams(access, params, page) {
  const list = part(() => api("upstreams"), (found) => table(found.instances, [
    { name: "Instance", show: (one) => [copy(one.address), h("div", { class: "small muted" }, one.name)], text: (one) => `${one.address} ${one.name}`, sort: true },
    { name: "State", show: (one) => [chip(one.state), one.reason && one.reason !== one.state && h("div", { class: "small muted" }, one.reason.replaceAll("_", " "))], text: (one) => `${one.state} ${one.reason ?? ""}`, sort: true },
    { name: "Since", show: (one) => time(one.changed_at, "the start"), sort: (one) => one.changed_at ?? "" },
    { name: "In flight", number: true, show: (one) => `${number(one.in_flight)} of ${number(found.max_in_flight)}`, sort: (one) => one.in_flight },
    { name: "Share", number: true, show: (one) => `${Math.round(one.share * 100)} %` },
    { name: "Requests", number: true, show: (one) => number(one.requests), sort: (one) => one.requests },
    { name: "Failures", number: true, show: (one) => number(one.failures), sort: (one) => one.failures },
    { name: "Last failure", show: (one) => (one.last_failure ? [one.last_failure.replaceAll("_", " "), h("div", { class: "small" }, time(one.last_failure_at))] : h("span", { class: "muted" }, "none")) },
    { name: "Ejections", number: true, show: (one) => number(one.ejections), sort: (one) => one.ejections },
  ], { placeholder: "Filter instances", empty: "No instance of Mimir is known. Look at upstream.urls in Config.", ...remembered(params) }));
  every(15_000, () => list.reload(true));
  return [page.head("Upstreams", "Mimir's instances as this copy sees them, since it knows them. An ejected one gets no requests; an unreachable one is only tried now and then."), list];
}

export function keys(access, params, page) {
  return [page.head("Keys", "The issuer's public keys, by which tokens are verified."), part(() => api("keys"), (found) => [
    found.problem && h("div", { class: "panel crit", role: "alert" }, h("h2", null, "The last fetch failed"), h("p", null, found.problem), h("p", { class: "muted" }, `The keys that are known are used until they are ${seconds(found.max_age_seconds)} old.`)),
    facts([
      ["Published at", found.url ? copy(found.url) : "no key set: the shared secret only"],
      ["State", found.is_trusted ? chip("ok", "used") : chip("critical", "not used: too old, or never fetched")],
      ["Fetched", time(found.fetched_at)],
      ["Next fetch", time(found.next_attempt_at, "unknown")],
      ["Interval", seconds(found.refresh_interval_seconds)],
      ["Used until it is", `${seconds(found.max_age_seconds)} old`],
      ["Legacy shared secret", found.has_shared_secret ? "accepted, too (HS256)" : "not accepted"],
    ]),
    table(found.keys, [
      { name: "Key (kid)", wide: true, show: (key) => copy(key.id), text: (key) => key.id, sort: true },
      { name: "Algorithm", show: (key) => key.algorithm, text: (key) => key.algorithm, sort: true },
    ], { placeholder: "Filter keys", empty: "No key is known." }),
    found.left_out.length > 0 && h("div", { class: "panel warn" }, h("h2", null, "Keys that are not used"), h("ul", null, found.left_out.map((why) => h("li", null, why)))),
  ])];
}

const LIMITS = { requests_per_second: "requests/s", bytes_per_second: "bytes/s", in_flight: "in flight", share: "share of all" };

function limitTable(limits, used, label = "Limits") {
  const inFlight = (one) => (one.in_flight === null ? "no limit" : number(one.in_flight));
  return table(Object.entries(limits).map(([surface, one]) => ({ surface, ...one })), [
    { name: "Surface", show: (one) => one.surface },
    { name: "In flight", number: true, show: (one) => (used ? `${number(used[one.surface] ?? 0)} of ${inFlight(one)}` : inFlight(one)) },
    { name: "Requests/s", number: true, show: (one) => (one.requests_per_second === null ? "no limit" : number(one.requests_per_second)) },
    { name: "Bytes/s", number: true, show: (one) => (one.bytes_per_second === null ? "no limit" : bytes(one.bytes_per_second)) },
  ], { placeholder: "Filter surfaces", label });
}

const refusedBy = (one) => (one.refused.length
  ? h("div", { class: "chips" }, one.refused.map((by) => chip("warning", `${number(by.count)} ${by.surface}, ${LIMITS[by.limit] ?? by.limit}`)))
  : h("span", { class: "muted" }, "none"));

const SOURCES = { default: "the default", config: "the configuration", database: "the database" };

// Which limits are no defaults, and where they come from.
const sourcesOf = (one) => {
  const set = Object.entries(one.sources).filter(([, source]) => source !== "default");
  return set.length
    ? h("div", { class: "chips" }, set.map(([name, source]) => chip("info", `${name}: ${SOURCES[source] ?? source}`)))
    : "all are defaults";
};

const deviceTable = (devices) => table(devices, [
  { name: "Device", show: (one) => h("code", null, one.id), text: (one) => one.id, sort: true },
  { name: "Kind", show: (one) => (one.kind === "user" ? "token of a user" : "device key"), text: (one) => one.kind, sort: true },
  { name: "Organisation", show: (one) => one.organisation, text: (one) => one.organisation, sort: true },
  { name: "Refused", number: true, show: (one) => number(one.refused_total), sort: (one) => one.refused_total },
  { name: "By", wide: true, show: refusedBy },
  { name: "Last", show: (one) => time(one.last_refused_at), sort: (one) => one.last_refused_at ?? "" },
], { placeholder: "Filter devices", empty: "No device was refused since this copy started.", label: "Devices over their limits" });

const rowProblems = (problems) => problems.length > 0 && h("div", { class: "panel warn" }, h("h2", null, "Rows that are no limit"),
  h("ul", null, problems.map((one) => h("li", null, `${one.organisation}, ${one.name}: ${one.problem}`))));

export function limits(access, params, page) {
  const [organisation, choice] = page.organisation("limits", params);
  if (organisation) {
    return [page.head("Limits", "What the organisation may have on this copy of the proxy, and what was refused since it started.", choice),
      part(() => api(`${path("organisations", organisation)}/limits`), (one) => [
        facts([["Refused by a limit", refusedBy(one)], ["Last", time(one.last_refused_at)], ["Limits", one.has_own_limits ? "its own" : "those of every organisation"], ["From", sourcesOf(one)]]),
        rowProblems(one.problems),
        limitTable(one.limits, one.in_flight),
        h("h2", null, "Limits of each of its devices"),
        limitTable(one.device_limits, undefined, "Limits of a device"),
        h("h2", null, "Devices that hit them"),
        deviceTable(one.devices),
      ])];
  }
  const list = part(() => api("limits?limit=1000"), (found) => [
    facts([
      ["In flight", `${number(found.in_flight)} of ${number(found.in_flight_limit)}; one organisation alone: ${found.organisation_percent} %`],
      ["Wait", `up to ${seconds(found.max_wait_seconds)}; ${seconds(found.burst_seconds)} of unused rate are saved up`],
      ["Organisations with limits of their own", found.rows ? `${number(found.overrides)} in the configuration, ${number(found.rows.organisations)} in the database` : number(found.overrides)],
      ["Memory", found.memory.limit_bytes === null ? "no limit" : `${bytes(found.memory.used_bytes)} of ${bytes(found.memory.limit_bytes)}${found.memory.shed === "nothing" ? "" : `; refused: ${found.memory.shed}${found.memory.shed === "lists" ? "" : " and what comes after"}`}`],
    ]),
    rowProblems(found.rows?.problems ?? []),
    h("h2", null, "Who hits them"),
    table(found.organisations, [
      { name: "Organisation", show: (one) => h("a", { href: link("limits", { organisation: one.organisation }) }, one.organisation), text: (one) => one.organisation, sort: true },
      { name: "Refused", number: true, show: (one) => number(one.refused_total), sort: (one) => one.refused_total },
      { name: "By", wide: true, show: refusedBy },
      { name: "Last", show: (one) => time(one.last_refused_at), sort: (one) => one.last_refused_at ?? "" },
      { name: "In flight now", number: true, show: (one) => number(Object.values(one.in_flight).reduce((all, count) => all + count, 0)) },
    ], { placeholder: "Filter organisations", empty: "No organisation was refused since this copy started, and none has a request in flight.", ...remembered(params) }),
    h("h2", null, "Devices that hit them"),
    deviceTable(found.devices),
    h("h2", null, "Limits of an organisation"),
    limitTable(found.each),
    h("h2", null, "Limits of a device"),
    limitTable(found.each_device, undefined, "Limits of a device"),
  ]);
  return [page.head("Limits", "On this copy of the proxy. Each copy counts for itself.", choice), list];
}

export function refusals(access, params, page) {
  const reason = params.get("reason") ?? "";
  const organisation = params.get("organisation") ?? "";
  const list = part(async () => {
    try {
      return await api(`refusals${query({ limit: "500", reason, organisation })}`);
    } catch (error) {
      if (error.status === 404) return null;
      throw error;
    }
  }, (found) => (found === null
    ? h("div", { class: "panel" }, h("h2", null, "Not offered by this version"), h("p", null, "This proxy does not keep its recent refusals. They are in its access log, with their reasons and request identifiers."))
    : [
      h("div", { class: "row" }, Object.entries(found.counts).sort(([, a], [, b]) => b - a).map(([name, count]) => h("a", { href: link("refusals", { reason: name === reason ? "" : name, organisation }), "aria-current": name === reason && "true" }, `${name.replaceAll("_", " ")} ${number(count)}`))),
      (reason || organisation) && h("p", null, `Only ${[reason, organisation].filter(Boolean).join(" in ")}. `, h("a", { href: link("refusals") }, "Show all")),
      found.overwritten > 0 && h("p", { class: "muted" }, `${number(found.overwritten)} older ones are not kept; their counts are above.`),
      table(found.refusals, [
        { name: "When", show: (one) => time(one.at), sort: (one) => one.at },
        { name: "Status", number: true, show: (one) => one.status, text: (one) => one.status, sort: true },
        { name: "Reason", show: (one) => h("a", { href: link("refusals", { reason: one.reason }) }, one.reason.replaceAll("_", " ")), text: (one) => one.reason, sort: true },
        { name: "Surface", show: (one) => one.surface, text: (one) => one.surface, sort: true },
        { name: "Organisation", show: (one) => one.organisation ? copy(one.organisation) : "", text: (one) => one.organisation ?? "" },
        { name: "Request", wide: true, show: (one) => h("code", null, `${one.method} ${one.path}`), text: (one) => `${one.method} ${one.path}` },
        { name: "From", show: (one) => [copy(one.client), one.kind && h("div", { class: "small muted" }, one.kind)], text: (one) => `${one.client} ${one.kind ?? ""}` },
        { name: "Request id", show: (one) => copy(one.request_id), text: (one) => one.request_id },
      ], { placeholder: "Filter by request id, path, reason or address", empty: "Nothing was refused since this copy started.", ...remembered(params) }),
    ]));
  return [page.head("Refusals", "Recent requests that were refused or failed on this copy, the newest first.", h("button", { type: "button", onclick: () => list.reload() }, "Refresh")), list];
}

export function config(access, params, page) {
  return [page.head("Config", "What runs, with where each value is from. Secrets are only said to be set."), part(() => Promise.all([api("config"), api("status")]), ([found, status]) => [
    facts([["Version", `${status.version}, commit ${status.commit}`], ["Copy", status.copy], ["Started", time(status.started_at)]]),
    found.warnings.length > 0 && h("div", { class: "panel warn" }, h("h2", null, "Probably mistakes"), h("ul", null, found.warnings.map((one) => h("li", null, h("code", null, one.key), ` ${one.problem}`)))),
    // What was set comes first.
    table([...found.settings].sort((a, b) => (a.source === "default") - (b.source === "default")), [
      { name: "Key", show: (one) => copy(one.key), text: (one) => one.key, sort: true },
      { name: "Value", wide: true, show: (one) => h("code", null, one.value), text: (one) => one.value },
      { name: "From", show: (one) => (one.source === "default" ? h("span", { class: "muted" }, "default") : one.source), text: (one) => one.source, sort: true },
    ], { placeholder: "Filter by key, value or source", ...remembered(params) }),
  ])];
}

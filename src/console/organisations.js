// All organisations, for operators; an organisation's members.

import { chips, copy, facts, h, number, part, time } from "./dom.js";
import { api, path, query } from "./session.js";
import { link, note } from "./place.js";
import { pages } from "./table.js";

export function organisations(access, params, page) {
  const [chosen, choice] = page.organisation("organisations", params);
  if (chosen) return one(access, params, page, chosen, choice);
  const only = params.get("problems") === "true";
  const list = pages(async ({ filter, after }) => {
    const found = await api(`organisations${query({ filter, after, problems: only && "true" })}`);
    return { rows: found.organisations, next: found.next, total: found.total };
  }, [
    { name: "Organisation", wide: true, show: (row) => [row.name && h("div", null, h("a", { href: link("organisations", { organisation: row.organisation }) }, row.name)), row.name ? copy(row.organisation) : h("a", { href: link("organisations", { organisation: row.organisation }) }, row.organisation)] },
    { name: "Rules", show: (row) => h("a", { href: link("rules", { organisation: row.organisation }) }, chips(row.rules)) },
    { name: "Channels", show: (row) => chips(row.channels) },
    { name: "Device keys", show: (row) => h("a", { href: link("devices", { organisation: row.organisation }) }, chips(row.devices)) },
    { name: "Last device", show: (row) => time(row.last_device_use) },
    { name: "Members", number: true, show: (row) => (row.members === null ? "not read" : number(row.members)) },
  ], {
    placeholder: "Filter by name or identifier",
    empty: "There is no organisation yet. One is a row in the table organisation.",
    filter: params.get("filter") ?? "",
    onfilter: (text) => note("filter", text),
  });
  return [
    page.head("Organisations", null, h("a", { href: link("organisations", only ? {} : { problems: "true" }) }, only ? "Show all" : "Only those with a problem")),
    list,
  ];
}

function one(access, params, page, organisation, choice) {
  const members = pages(async ({ filter, after }) => {
    const found = await api(`${path("organisations", organisation)}/members${query({ filter, after })}`);
    if (found.unknown_because) {
      return { rows: [], unknown: found.unknown_because, total: 0 };
    }
    return { rows: found.members, next: found.next };
  }, [
    { name: "User", show: (row) => copy(row.user) },
    { name: "Role", show: (row) => row.role },
    { name: "Scopes", wide: true, show: (row) => (row.scopes.length ? row.scopes.join(", ") : "none: the role is not in [roles]") },
    { name: "Default", show: (row) => (row.is_default ? "yes" : "") },
    { name: "Since", show: (row) => time(row.since, "unknown") },
  ], { placeholder: "Filter by user or role", empty: "No member is known.", filter: params.get("filter") ?? "", onfilter: (text) => note("filter", text) });
  const why = part(() => api(`${path("organisations", organisation)}/members${query({ limit: "1" })}`), (found) => (found.unknown_because
    ? h("div", { class: "panel" }, h("p", null, `Members cannot be listed: ${found.unknown_because}.`))
    : members));
  const own = access.administered.find((each) => each.id === organisation);
  return [
    page.head("Organisation", null, choice),
    facts([["Identifier", copy(organisation)], own && ["Your role", own.role], own && ["Tenant", own.tenant]]),
    h("div", { class: "row" }, ["rules", "devices", "channels", "limits"].map((view) => h("a", { href: link(view, { organisation }) }, view[0].toUpperCase() + view.slice(1)))),
    h("h2", null, "Members"), why,
  ];
}

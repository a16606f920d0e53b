// Notification channels and routes: states with reasons, what a sync would change, and a test.

import { chip, chips, confirm, copy, dialog, diff, facts, h, part, problem, put, time } from "./dom.js";
import { api, path } from "./session.js";
import { link, note } from "./place.js";
import { table } from "./table.js";

export function channels(access, params, page) {
  const [organisation, choice] = page.organisation("channels", params);
  return organisation ? ofOne(organisation, params, page, choice) : ofAll(page, choice);
}

function ofAll(page, choice) {
  return [
    page.head("Channels", "All organisations. Choose one to see its channels.", choice),
    part(() => api("channels/status"), (status) => [
      table(status.organisations, [
        { name: "Organisation", show: (one) => h("a", { href: link("channels", { organisation: one.organisation }) }, one.organisation), text: (one) => one.organisation, sort: true },
        { name: "State", show: (one) => chip(one.state), text: (one) => one.state, sort: true },
        { name: "Problem", wide: true, show: (one) => one.guard?.reason ?? one.problem, text: (one) => one.guard?.reason ?? one.problem },
        { name: "Last write", show: (one) => time(one.synced_at), sort: (one) => one.synced_at ?? "" },
      ], { placeholder: "Filter organisations", empty: "No organisation has channels yet." }),
      !status.complete && h("p", { class: "muted" }, "Only the first 1000 are listed; those with a problem come first."),
    ]),
  ];
}

function ofOne(organisation, params, page, choice) {
  const at = `${path("organisations", organisation)}/channels`;
  const outcome = h("div", { class: "stack" });
  const list = part(() => api(at), (found, reload) => {
    const nameOf = (id) => found.channels.find((channel) => channel.id === id)?.name ?? id;
    return [
      found.sync.guard && guardPanel(found.sync.guard, organisation, at, outcome, reload),
      facts([["Document in Mimir", chip(found.sync.state)], ["Tenant", copy(found.tenant)], ["Last write", time(found.sync.synced_at)]]),
      h("h2", null, "Channels"),
      table(found.channels, [
        { name: "Channel", wide: true, show: (one) => [h("div", null, one.name || "without a name"), h("span", { class: "small" }, copy(one.id, one.id, "mono muted"))], text: (one) => `${one.name} ${one.id}`, sort: (one) => one.name ?? "" },
        { name: "Kind", show: (one) => one.kind, text: (one) => one.kind, sort: true },
        { name: "State", show: (one) => chip(one.state), text: (one) => one.state, sort: true },
        { name: "Reason", wide: true, show: (one) => one.reason, text: (one) => one.reason },
        { name: "", show: (one) => h("button", { type: "button", disabled: one.state !== "live", "aria-label": `Send a test to ${one.name}`, onclick: () => test(at, one) }, "Send a test") },
      ], { placeholder: "Filter channels", filter: params.get("filter") ?? "", onfilter: (text) => note("filter", text), empty: "There are no channels. Each is a row in the table notification_channel." }),
      h("h2", null, "Routes, in the order in which they are tried"),
      table(found.routes, [
        { name: "Position", number: true, show: (one) => one.position ?? "" },
        { name: "To", show: (one) => nameOf(one.channel), text: (one) => nameOf(one.channel) },
        { name: "State", show: (one) => chip(one.state), text: (one) => one.state },
        { name: "Reason", wide: true, show: (one) => one.reason, text: (one) => one.reason },
      ], { placeholder: "Filter routes", empty: "There are no routes: what no route takes goes to default channels." }),
    ];
  });
  const act = (text, run) => async () => {
    put(outcome, h("p", { class: "muted" }, text));
    try {
      put(outcome, run(await api(...run.asks)));
    } catch (error) {
      put(outcome, problem(error));
    }
  };
  const shows = (found) => h("section", { class: "panel" },
    h("h2", null, found.in_sync ? "Mimir has what the rows say" : "A sync would change the document"),
    found.foreign && h("p", null, chip("foreign", "Mimir has a document that the proxy did not write. It is not shown, and not overwritten.")),
    found.guard && h("p", null, chip("held", found.guard.reason)),
    found.diff && diff(found.diff),
    found.not_live.length > 0 && h("ul", null, found.not_live.map((one) => h("li", null, `${one.what} `, copy(one.id), " ", chip(one.state), " ", one.reason))));
  shows.asks = [`${at}/diff`];
  const synced = (found) => {
    list.reload(true);
    return h("section", { class: "panel", role: "status" },
      h("h2", null, found.state === "done" ? "The sync is done" : "The leader has not answered yet; the sync goes on"),
      facts([["Document", chip(found.sync.state)], ["Channels", chips(found.channels)], ["Routes", chips(found.routes)], found.sync.guard && ["Held back", found.sync.guard.reason]]));
  };
  synced.asks = [`${at}/sync`, { method: "POST" }];
  return [
    page.head("Channels", null, choice,
      h("button", { type: "button", onclick: act("Comparing with Mimir…", shows) }, "Show diff"),
      h("button", { type: "button", class: "primary", onclick: act("Syncing…", synced) }, "Sync now")),
    outcome, list,
  ];
}

function test(at, channel) {
  dialog(`Test of ${channel.name}`, (close) => {
    const outcome = h("div", { class: "stack" }, h("p", null, "Sends one alert to this channel and follows it. This takes up to a minute."), h("progress", { "aria-label": "Waiting for the test" }));
    const began = Date.now();
    const run = async () => {
      try {
        const report = await api(`${at}/${path(channel.id)}/test`, { method: "POST" });
        put(outcome, h("p", null, chip(report.outcome, report.outcome.replaceAll("_", " "))), h("p", null, report.reason),
          h("p", { class: "small muted" }, `It took ${((Date.now() - began) / 1000).toFixed(1)} s.`, report.test && [" Test ", copy(report.test)]));
      } catch (error) {
        put(outcome, problem(error));
      }
    };
    void run();
    return h("div", null, h("h1", null, `Test of ${channel.name || "a channel"}`), outcome, h("div", { class: "row end" }, h("button", { type: "button", onclick: close }, "Close")));
  });
}

function guardPanel(guard, organisation, at, outcome, reload) {
  const ask = () => confirm({
    title: "Change the Alertmanager's document",
    says: h("div", { class: "stack" }, h("p", null, guard.reason), h("p", null, "This is written to Mimir. Alerts that went to what is removed reach nobody by it any more.")),
    name: organisation, action: "Confirm the write",
    run: () => api(`${at}/guard/confirm`, { method: "POST", body: { guard: guard.id } }),
    done: () => { put(outcome, h("p", null, chip("done", "It is confirmed and written."))); reload(true); },
  });
  return h("section", { class: "panel warn" }, h("h2", null, "A write is held back"), h("p", null, guard.reason),
    h("p", { class: "small muted" }, "Since ", time(guard.since, "now")),
    h("div", null, h("button", { class: "danger", type: "button", onclick: ask }, "Confirm the write…")));
}

// Device keys: create, show once with ready-made configurations, rotate, revoke.

import { chip, confirm, copy, copyButton, dialog, facts, h, part, problem, put, time } from "./dom.js";
import { api, base, path, query } from "./session.js";
import { note } from "./place.js";
import { pages, table } from "./table.js";

const SCOPES = [
  ["metrics:write", "write metrics"], ["metrics:read", "read metrics"], ["rules:read", "read alert rules"], ["alerts:read", "read silences"],
];

export function devices(access, params, page) {
  const [organisation, choice] = page.organisation("devices", params);
  if (!organisation) {
    return [page.head("Devices", "Choose an organisation to see the keys of its devices.", choice)];
  }
  const at = `${path("organisations", organisation)}/device-keys`;
  const list = part(() => api(at), (found, reload) => {
    const create = () => keyDialog(at, { reload });
    const columns = [
      { name: "Device", wide: true, show: (key) => [h("div", null, key.name), h("span", { class: "small muted mono" }, `${key.key_hint}…`)], text: (key) => `${key.name} ${key.key_hint} ${key.id}`, sort: (key) => key.name },
      { name: "State", show: (key) => chip(key.state), text: (key) => key.state, sort: true },
      { name: "May", show: (key) => key.scopes.join(", "), text: (key) => key.scopes.join(" ") },
      { name: "Last used", show: (key) => time(key.last_used_at), sort: (key) => key.last_used_at ?? "" },
      { name: "Expires", show: (key) => (key.revoked_at ? ["revoked ", time(key.revoked_at)] : time(key.expires_at)), sort: (key) => key.expires_at ?? "9" },
      { name: "Created", show: (key) => [time(key.created_at, "unknown"), h("div", { class: "small muted", title: key.created_by }, key.created_by.length > 20 ? `${key.created_by.slice(0, 14)}…` : key.created_by)], sort: (key) => key.created_at ?? "" },
      { name: "", show: (key) => key.state !== "revoked" && h("div", { class: "row" },
        h("button", { type: "button", "aria-label": `Rotate the key of ${key.name}`, onclick: () => keyDialog(at, { reload, old: key }) }, "Rotate"),
        h("button", { type: "button", class: "danger", "aria-label": `Revoke the key of ${key.name}`, onclick: () => revoke(at, key, reload) }, "Revoke")) },
    ];
    const filtering = { filter: params.get("filter") ?? "", onfilter: (text) => note("filter", text) };
    if (!found.complete) {
      // More than the proxy lists at once: it filters them.
      const load = async (wanted) => {
        const { device_keys: rows, next } = await api(`${at}${query({ ...wanted, limit: "100" })}`);
        return { rows, next };
      };
      return pages(load, columns, { placeholder: "Filter by name, identifier or scope", ...filtering });
    }
    return table(found.device_keys, columns, {
      placeholder: "Filter by name, state or scope", ...filtering,
      empty: ["No device has a key yet.", h("button", { type: "button", class: "primary", onclick: create }, "Create a key")],
    });
  });
  return [
    page.head("Devices", "One key for each device, so that a lost device is one revoked key.", choice,
      h("button", { type: "button", class: "primary", onclick: () => keyDialog(at, { reload: list.reload }) }, "Create a key")),
    list,
  ];
}

function revoke(at, key, reload) {
  confirm({
    title: `Revoke the key of ${key.name}`,
    says: h("div", { class: "stack" },
      h("p", null, "1 device loses access within a second. What it sends is answered with 401; some senders then drop their samples."),
      facts([["Key", `${key.key_hint}…`], ["Last used", time(key.last_used_at)]])),
    name: key.name, action: "Revoke the key",
    run: () => api(`${at}/${path(key.id)}`, { method: "DELETE" }),
    done: () => reload(true),
  });
}

/** Asks what the key is to be, and then shows it. `old` is a key that is replaced. */
function keyDialog(at, { reload, old }) {
  dialog(old ? "Rotate a key" : "Create a key", (leave, { close, hold }) => {
    const outcome = h("div");
    const box = h("form", {
      onsubmit: async (event) => {
        event.preventDefault();
        const form = new FormData(box);
        const days = Number(form.get("days"));
        const button = box.querySelector("button.primary");
        button.disabled = true;
        hold({ says: "The key is being created. If you close this now, it exists and nobody sees it.", anyway: "Close it all the same" });
        try {
          const made = await api(at, { method: "POST", body: {
            name: form.get("name"), scopes: form.getAll("scopes"), ...(days ? { expires_in_seconds: days * 86400 } : {}),
          } });
          hold({ says: "The key has not been copied, and nobody can show it again.", anyway: "Close it without the key", outlives: true });
          reload(true);
          await showKey(box, made, { at, old, reload, close, copied: () => hold(null) });
        } catch (error) {
          hold(null);
          button.disabled = false;
          put(outcome, problem(error));
        }
      },
    },
      h("h1", null, old ? `Rotate the key of ${old.name}` : "Create a key"),
      old && h("p", null, "A second key is created. The old one works until you revoke it, which is offered next."),
      h("label", null, "Name of the device", h("input", { name: "name", required: true, maxlength: "200", value: old?.name ?? "", autocomplete: "off", placeholder: "hub-17" })),
      h("div", { class: "stack", role: "group", "aria-label": "What the key may do" }, SCOPES.map(([scope, words]) => h("label", { class: "check" },
        h("input", { type: "checkbox", name: "scopes", value: scope, checked: (old?.scopes ?? ["metrics:write"]).includes(scope) }), words, h("span", { class: "muted mono" }, scope)))),
      h("label", null, "Expires", h("select", { name: "days" }, [["0", "never"], ["90", "in 90 days"], ["365", "in a year"], ["730", "in two years"]].map(([days, words]) => h("option", { value: days }, words)))),
      outcome,
      h("div", { class: "row end" }, h("button", { type: "button", onclick: leave }, "Cancel"), h("button", { class: "primary" }, old ? "Create the new key" : "Create")));
    return box;
  });
}

let senders;

async function showKey(box, made, { at, old, reload, close, copied }) {
  // What has been created is shown even if the configurations cannot be had.
  senders ??= await fetch(new URL("console/senders.json", base)).then((answer) => answer.json()).catch(() => undefined);
  const outcome = h("div");
  const retire = old && h("button", {
    type: "button", class: "danger",
    onclick: async () => {
      retire.disabled = true;
      try {
        await api(`${at}/${path(old.id)}`, { method: "DELETE" });
        reload(true);
        put(outcome, h("p", null, chip("revoked", "The old key is revoked.")));
      } catch (error) {
        retire.disabled = false;
        put(outcome, problem(error));
      }
    },
  }, "Revoke the old key now");
  const shown = h("div", null,
    h("h1", null, `The key of ${made.name}`),
    h("p", null, chip("warning", "It is shown this once only. Copy it now: nobody can show it again.")),
    h("div", { class: "key row" },
      h("code", { "data-key": true, oncopy: () => { if (getSelection().toString().includes(made.key)) copied(); } }, made.key),
      copyButton(made.key, "Copy the key", copied)),
    senders ? tabs(senders, made.name) : h("p", { class: "muted" }, "The configurations of senders could not be loaded; they are in docs/operations/devices.md."),
    outcome,
    h("div", { class: "row end" }, retire, h("button", { type: "button", class: "primary", onclick: close }, "I have the key")));
  box.replaceWith(shown);
  shown.querySelector("button").focus();
}

/** Ready-made configurations, with this proxy's address and the device's name. */
function tabs({ address, device, senders: all }, name) {
  // A name may be anything; in a configuration it is quoted nowhere.
  const plain = name.replaceAll(/[^\w.-]/g, "-").replace(/^-+/, "") || device;
  const origin = new URL(base).origin;
  const fill = (text) => text.replaceAll(address, origin).replaceAll(device, plain);
  const panel = h("div", { class: "stack", role: "tabpanel", id: "sender", tabindex: "-1" });
  const buttons = all.map((sender, at) => h("button", {
    type: "button", role: "tab", id: `tab-${at}`, "aria-controls": "sender",
    onclick: () => select(at),
    onkeydown: (event) => {
      const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (by) select((at + by + all.length) % all.length, true);
    },
  }, sender.name));
  const select = (at, focus) => {
    buttons.forEach((button, each) => {
      button.setAttribute("aria-selected", String(each === at));
      button.tabIndex = each === at ? 0 : -1;
    });
    panel.setAttribute("aria-labelledby", `tab-${at}`);
    const place = all[at].files.map(({ text }) => /[\w/]*\/device-key/.exec(text)?.[0]).find(Boolean);
    put(panel,
      h("p", { class: "small muted" }, place ? ["The key belongs into ", h("code", null, place), ", readable by the sender only."] : ["The key belongs into the variable ", h("code", null, "DEVICE_KEY"), "."]),
      all[at].files.map(({ file, text }) => h("div", { class: "stack" },
        h("div", { class: "row" }, h("h2", { class: "mono" }, file), copyButton(fill(text), `Copy ${file}`)),
        h("pre", { tabindex: "0", "aria-label": file }, fill(text)))));
    if (focus) buttons[at].focus();
  };
  select(0);
  return h("div", { class: "stack" }, h("div", { role: "tablist", "aria-label": "Senders" }, buttons), panel);
}

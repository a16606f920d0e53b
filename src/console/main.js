// The console: sign-in, the frame around the views, and which view is shown to whom.

import { bones, closeDialogs, dialog, endDialogs, h, problem, put } from "./dom.js";
import { api, email, forget, isOrganisation, query, settings, signIn, start, Superseded, useToken } from "./session.js";
import { go, here, link, stopTimers } from "./place.js";
import { overview } from "./overview.js";
import { organisations } from "./organisations.js";
import { rules } from "./rules.js";
import { devices } from "./devices.js";
import { channels } from "./channels.js";
import { config, keys, limits, refusals, upstreams } from "./system.js";

// Name, view, and who sees it: everybody, administrators of an organisation, or operators.
const VIEWS = {
  overview: ["Overview", overview, "everybody"],
  organisations: ["Organisations", organisations, "administrator"],
  rules: ["Rules", rules, "administrator"],
  devices: ["Devices", devices, "administrator"],
  channels: ["Channels", channels, "administrator"],
  upstreams: ["Upstreams", upstreams, "operator"],
  keys: ["Keys", keys, "operator"],
  limits: ["Limits", limits, "administrator"],
  refusals: ["Refusals", refusals, "operator"],
  config: ["Config", config, "operator"],
};

const root = h("div");
let access = null;

/** What the caller may see, by `/admin/whoami`. */
function accessOf(whoami) {
  const everywhere = whoami.every_organisation?.scopes.includes("admin") ?? false;
  const all = whoami.organisations ?? [];
  const administered = all.filter((one) => one.scopes.includes("admin"));
  return {
    whoami, administered, organisations: all,
    kind: everywhere ? "operator" : administered.length ? "administrator" : "member",
    name: email() ?? (everywhere ? "admin key" : `${whoami.principal.kind} ${whoami.principal.name ?? whoami.principal.id}`),
  };
}

function maySee(view) {
  const who = VIEWS[view]?.[2];
  return who === "everybody" || access.kind === "operator" || (who === "administrator" && access.kind === "administrator");
}

// The theme: the system's, or the one that was chosen.
function theme(next) {
  try {
    if (next) localStorage.setItem("mimir-tenant-proxy-theme", next);
    else next = localStorage.getItem("mimir-tenant-proxy-theme");
  } catch {
    // Storage may be off.
  }
  if (next) document.documentElement.dataset.theme = next;
}

function themeButton() {
  const isDark = () => getComputedStyle(document.documentElement).colorScheme === "dark"
    || (!document.documentElement.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
  const button = h("button", { type: "button", onclick: () => { theme(isDark() ? "light" : "dark"); name(); } });
  const name = () => { button.textContent = isDark() ? "Light" : "Dark"; button.title = `Switch to ${isDark() ? "light" : "dark"} colours`; };
  name();
  return button;
}

/** Shows the sign-in, and gives the place for what is to be said later. */
function signInPage(message) {
  stopTimers();
  endDialogs();
  access = null;
  document.title = "Sign in · Console";
  const outcome = h("div");
  const notice = h("div");
  const enter = (action) => async (event) => {
    event.preventDefault();
    const button = event.target.querySelector("button");
    button.disabled = true;
    put(outcome, bones(1));
    try {
      await action(new FormData(event.target));
      await enterConsole();
    } catch (error) {
      button.disabled = false;
      if (!(error instanceof Superseded)) put(outcome, problem(error));
    }
  };
  const byEmail = settings.supabase_url && h("form", {
    onsubmit: enter((form) => signIn(form.get("email"), form.get("password"))),
  },
    h("label", null, "Email", h("input", { name: "email", type: "email", required: true, autocomplete: "username" })),
    h("label", null, "Password", h("input", { name: "password", type: "password", required: true, autocomplete: "current-password" })),
    h("button", { class: "primary" }, "Sign in"));
  const byToken = h("form", {
    onsubmit: enter((form) => useToken(form.get("token").trim(), form.get("keep") === "on")),
  },
    h("label", null, "Token", h("input", { name: "token", type: "password", required: true, autocomplete: "off", spellcheck: "false" })),
    h("label", { class: "check" }, h("input", { type: "checkbox", name: "keep" }), "Keep it until this tab is closed"),
    h("button", { class: byEmail ? null : "primary" }, "Use the token"),
    h("p", { class: "small muted" }, "An operator's admin key, or the access token of a user. It is kept in memory and sent to this proxy only."));
  put(root, h("main", { class: "sign-in" },
    h("div", { class: "row" }, h("div", null, h("h1", null, "Console"), h("p", { class: "muted" }, "mimir-tenant-proxy")), themeButton()),
    message && h("div", { class: "panel warn", role: "alert" }, h("p", null, message)),
    notice, byEmail, byEmail && h("h2", null, "Or with a token"), byToken, outcome));
  root.querySelector("input")?.focus();
  return notice;
}

async function enterConsole() {
  access = accessOf(await api("whoami"));
  frame();
  show();
}

function leave(message) {
  const told = forget();
  const notice = signInPage(message);
  told.catch((error) => put(notice, h("div", { class: "panel warn", role: "alert" },
    h("p", null, `You are signed out here, but Supabase could not be told: there, your session goes on. ${error.message}`))));
}

const main = h("main", { tabindex: "-1" });

function frame() {
  const items = Object.entries(VIEWS).filter(([view]) => maySee(view));
  const words = { operator: "operator", administrator: "administrator", member: "member" }[access.kind];
  put(root, h("div", { class: "shell" },
    h("a", { class: "skip", href: "#main", onclick: (event) => { event.preventDefault(); main.focus(); } }, "Skip to the content"),
    h("header", { class: "top" },
      h("strong", null, "mimir-tenant-proxy"),
      h("span", { class: "who" }, `${access.name} · ${words}`),
      h("div", { class: "row end" }, themeButton(), h("button", { type: "button", onclick: () => leave() }, "Sign out"))),
    h("nav", { class: "rail", "aria-label": "Views" },
      h("ul", null, items.map(([view, [name]]) => h("li", null, h("a", { href: link(view), "data-view": view }, name))))),
    main));
}

function show() {
  if (!access) return;
  stopTimers();
  const { view, params } = here();
  const [name, render] = VIEWS[view] ?? [];
  root.querySelectorAll(".rail a").forEach((one) => {
    if (one.dataset.view === view) {
      one.setAttribute("aria-current", "page");
      one.scrollIntoView({ block: "nearest", inline: "nearest" });
    } else one.removeAttribute("aria-current");
  });
  document.title = `${name ?? "Not there"} · Console`;
  if (!render) {
    put(main, h("h1", null, "There is no such view"), h("p", null, h("a", { href: link("overview") }, "Go to the overview")));
  } else if (!maySee(view)) {
    const who = VIEWS[view][2] === "operator" ? "the operators of the proxy" : "administrators of an organisation";
    put(main, h("h1", null, name), h("div", { class: "panel" }, h("p", null, `This view is for ${who}. You are signed in as ${access.name}.`)));
  } else if (params.get("organisation") && !isOrganisation(params.get("organisation"))) {
    put(main, h("h1", null, name), h("div", { class: "panel" },
      h("p", null, "No organisation can have the identifier ", h("code", null, params.get("organisation")), "."),
      h("p", null, h("a", { href: link(view) }, "Choose another one"))));
  } else {
    put(main, render(access, params, { head, organisation, show }));
  }
  main.scrollTop = 0;
  main.focus({ preventScroll: true });
}

function head(title, about, ...actions) {
  return h("div", { class: "head" }, h("h1", null, title), ...actions, about && h("p", null, about));
}

/** Lets one choose the organisation of a view: among one's own, or, as operator, among all. */
function organisation(view, params) {
  const now = params.get("organisation") ?? "";
  if (access.kind === "administrator") {
    const own = access.administered.map((one) => one.id);
    const chosen = own.includes(now) ? now : own[0];
    return [chosen, h("label", null, "Organisation", h("select", { onchange: (event) => go(view, { organisation: event.target.value }) },
      own.map((id) => h("option", { value: id, selected: id === chosen }, id))))];
  }
  const list = h("datalist", { id: "organisations" });
  const name = h("span", null, "Organisation");
  // Its name, where there is one: identifiers say little.
  if (now) {
    api(`organisations${query({ filter: now, limit: "20" })}`).then((found) => {
      const known = found.organisations.find((one) => one.organisation === now);
      if (known?.name) name.textContent = `Organisation: ${known.name}`;
    }, () => {});
  }
  let asked = 0;
  const suggest = async (filter) => {
    const mine = asked += 1;
    const found = await api(`organisations${query({ filter, limit: "20" })}`).catch(() => ({ organisations: [] }));
    // What was typed before may be answered later.
    if (mine === asked) put(list, found.organisations.map((one) => h("option", { value: one.organisation }, one.name)));
  };
  let waiting;
  const choose = () => { if (input.value.trim() !== now) go(view, { organisation: input.value.trim() }); };
  const input = h("input", {
    value: now, list: "organisations", placeholder: "All; type to choose one", spellcheck: "false", "data-search": true,
    onchange: choose,
    onfocus: () => suggest(""),
    oninput: () => { clearTimeout(waiting); waiting = setTimeout(() => suggest(input.value.trim()), 200); },
  });
  return [now, h("label", null, name, input, list)];
}

function help() {
  const keysOf = [["/", "go to the filter"], ["?", "this help"], ["g then a letter", "go to a view: g o Overview, g r Rules, g d Devices"], ["Esc", "close a dialog"]];
  dialog("Keys", (close) => h("div", null, h("h1", null, "Keys"),
    h("dl", null, keysOf.map(([key, what]) => [h("dt", null, h("code", null, key)), h("dd", null, what)])),
    h("div", { class: "row end" }, h("button", { type: "button", onclick: close }, "Close"))));
}

let isGoing = false;
addEventListener("keydown", (event) => {
  if (!access || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (/^(input|select|textarea)$/i.test(event.target.tagName)) return;
  if (isGoing) {
    isGoing = false;
    const view = Object.keys(VIEWS).find((one) => one.startsWith(event.key) && maySee(one));
    if (view) go(view);
  } else if (event.key === "/") {
    const search = main.querySelector("[data-search]");
    if (search) { event.preventDefault(); search.focus(); search.select(); }
  } else if (event.key === "?") help();
  else if (event.key === "g") { isGoing = true; setTimeout(() => { isGoing = false; }, 1500); }
});
addEventListener("hashchange", (event) => {
  if (access && !closeDialogs()) history.pushState(null, "", event.oldURL);
  else show();
});
addEventListener("signed-out", (event) => {
  if (access) leave(event.detail ? `You were signed out: ${event.detail}` : "You were signed out.");
});

/** Goes on with the sign-in that this tab has kept. Only the proxy's refusal ends it: an outage passes. */
async function resume() {
  put(root, h("main", { class: "sign-in" }, bones()));
  try {
    await enterConsole();
  } catch (error) {
    if (error instanceof Superseded) return;
    if (error.status === 401) {
      leave("Your sign-in has ended. Sign in again.");
      return;
    }
    put(root, h("main", { class: "sign-in" }, h("h1", null, "Console"), problem(error, resume),
      h("div", { class: "row" }, h("button", { type: "button", onclick: () => leave() }, "Sign out"))));
  }
}

theme();
document.body.append(root);
if (await start()) await resume();
else signInPage();

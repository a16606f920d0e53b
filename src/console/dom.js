// Building of the page. Texts become text nodes, whatever is in them: rows of the database are
// written by anybody.

export function h(tag, props, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else if (["value", "checked", "disabled", "htmlFor"].includes(name)) element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  append(element, children);
  return element;
}

function append(element, children) {
  for (const child of children.flat(9)) {
    if (child !== null && child !== undefined && child !== false) element.append(child);
  }
}

export function put(element, ...children) {
  element.replaceChildren();
  append(element, children);
  return element;
}

const toast = h("div", { class: "toast", role: "status" });
let toasted;

export function say(text) {
  if (!toast.isConnected) document.body.append(toast);
  toast.textContent = text;
  clearTimeout(toasted);
  toasted = setTimeout(() => { toast.textContent = ""; }, 4000);
}

async function copyText(text, done) {
  try {
    await navigator.clipboard.writeText(text);
    say("Copied");
    done?.();
  } catch {
    say("The browser does not allow to copy here: select the text and copy it");
  }
}

/** A text that is copied by a click. */
export function copy(text, shown = text, name = "mono") {
  if (!text) return "";
  return h("button", { class: `copy ${name}`, type: "button", title: `Copy ${text}`, onclick: () => copyText(text) }, shown);
}

export function copyButton(text, label = "Copy", done) {
  return h("button", { type: "button", onclick: () => copyText(text, done) }, label);
}

// Words, and the meaning of each state. Colour never stands alone.
const MEANING = {
  live: "ok", active: "ok", in_use: "ok", done: "ok", ok: "ok", "in sync": "ok", sent: "ok", delivered: "ok",
  stored: "", pending: "", disabled: "", revoked: "", none: "", waiting: "", running: "",
  returning: "warn", in_grace: "warn", over_limit: "warn", held: "warn", foreign: "warn", warning: "warn",
  failing: "crit", invalid: "crit", error: "crit", ejected: "crit", unreachable: "crit", expired: "crit", critical: "crit", refused: "crit",
};

export function chip(state, text = String(state).replaceAll("_", " ")) {
  return h("span", { class: `chip ${MEANING[state] ?? ""} ${text.length > 24 ? "long" : ""}` }, text);
}

/** Counts by state, without those that are none. */
export function chips(counts) {
  const some = Object.entries(counts ?? {}).filter(([, count]) => count > 0);
  if (!some.length) return h("span", { class: "muted" }, counts ? "none" : "not read");
  return h("span", { class: "chips" }, some.map(([state, count]) => chip(state, `${number(count)} ${state.replaceAll("_", " ")}`)));
}

export const number = (value) => Number(value).toLocaleString("en");

export function plural(count, word) {
  return `${number(count)} ${word}${count === 1 ? "" : "s"}`;
}

export function seconds(value) {
  if (value === null || value === undefined) return "unknown";
  if (value < 0.0995) return `${Number((value * 1000).toPrecision(2))} ms`;
  if (value < 9.95) return `${Number(value.toPrecision(2))} s`;
  const units = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const [size, unit] = units.find(([size]) => value >= size) ?? [1, "s"];
  const count = value / size;
  return `${unit === "s" || count >= 10 ? Math.round(count) : Number(count.toPrecision(2))} ${unit}`;
}

export function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  for (; value >= 1024 && at < units.length - 1; at += 1) value /= 1024;
  return `${Number(value.toPrecision(3))} ${units[at]}`;
}

/** A time: how long ago, and in full on hover. */
export function time(text, never = "never") {
  if (!text) return h("span", { class: "muted" }, never);
  const at = new Date(text);
  if (Number.isNaN(at.getTime())) return text;
  const left = (at - Date.now()) / 1000;
  const near = Math.abs(left) < 2;
  const full = at.toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "medium", timeZone: undefined });
  const zone = Intl.DateTimeFormat("en", { timeZoneName: "short" }).formatToParts(at).find((part) => part.type === "timeZoneName");
  return h("time", { datetime: text, title: `${full} ${zone?.value ?? ""}` }, near ? "now" : left > 0 ? `in ${seconds(left)}` : `${seconds(-left)} ago`);
}

export function facts(pairs) {
  return h("dl", null, pairs.filter(Boolean).map(([name, value]) => [h("dt", null, name), h("dd", null, value ?? "")]));
}

export function bones(count = 3, kind = "") {
  return h("div", { class: "stack", role: "status", "aria-label": "Loading" }, Array.from({ length: count }, () => h("div", { class: `bone ${kind}` })));
}

/** What went wrong, in words, with the identifier by which the log knows the request. */
export function problem(error, retry) {
  const id = error.requestId;
  return h("div", { class: "panel crit", role: "alert" },
    h("h2", null, error.title ?? "This could not be done"),
    h("p", null, error.message),
    id && h("p", { class: "small muted" }, "Request ", copy(id)),
    retry && h("div", null, h("button", { type: "button", onclick: retry }, "Try again")));
}

/** Loads something and shows it in a place of its own: what fails leaves the rest of the page. */
export function part(load, render, skeleton = () => bones()) {
  const place = h("div", { class: "stack" });
  let loaded = 0;
  const run = async (quiet) => {
    // The view was left: it asks for nothing any more.
    if (loaded && !place.isConnected) return;
    const mine = loaded += 1;
    if (quiet !== true) put(place, skeleton());
    try {
      const data = await load();
      if (mine === loaded) put(place, render(data, run));
    } catch (error) {
      if (mine === loaded && !(quiet === true && error.status === 0)) put(place, problem(error, run));
    }
  };
  place.reload = run;
  run();
  return place;
}

// The dialogs that are open.
const dialogs = new Set();

addEventListener("beforeunload", (event) => {
  if ([...dialogs].some((one) => one.loses())) event.preventDefault();
});

/** Closes all dialogs. False if one would lose something: it asks, and stays. */
export function closeDialogs() {
  return [...dialogs].map((one) => one.leave()).every(Boolean);
}

/** Closes all dialogs when the sign-in ends. One that shows what cannot be shown again stays all the same. */
export function endDialogs() {
  for (const one of dialogs) if (!one.loses()?.outlives) one.close();
}

/**
 * Shows a dialog until it is closed. `build` gets what closes it, and then `close`, which does so without asking,
 * and `hold`: while it holds something (`says`, what closing would lose; `anyway`, the button that loses it), the
 * dialog asks before it closes, by whatever way. `outlives`: also if the sign-in ends.
 */
export function dialog(title, build, onclose) {
  const before = document.activeElement;
  const box = h("dialog", { "aria-label": title });
  const question = h("div", { class: "panel warn", role: "alert" });
  let held = null;
  const hold = (what) => {
    held = what;
    question.remove();
  };
  const close = () => {
    hold(null);
    box.close();
  };
  const leave = () => {
    if (!held) close();
    else if (!question.isConnected) {
      put(question, h("p", null, held.says), h("div", { class: "row" },
        h("button", { type: "button", onclick: () => question.remove() }, "Keep it open"),
        h("button", { type: "button", class: "danger", onclick: close }, held.anyway)));
      box.prepend(question);
    }
    question.querySelector("button")?.focus();
    return !held;
  };
  // The first is enough for a keyboard. A browser does not let a page prevent `cancel` twice in a row, and a
  // phone's way back may come as `close` only.
  box.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !held) return;
    event.preventDefault();
    leave();
  });
  box.addEventListener("cancel", (event) => {
    if (!held) return;
    event.preventDefault();
    leave();
  });
  box.addEventListener("close", () => {
    if (held) {
      box.showModal();
      leave();
      return;
    }
    dialogs.delete(entry);
    box.remove();
    onclose?.();
    before?.focus?.();
  });
  const entry = { leave, close, loses: () => held };
  dialogs.add(entry);
  put(box, build(leave, { close, hold }));
  document.body.append(box);
  box.showModal();
  return box;
}

/** Asks before something that cannot be undone: what will happen, and a name that is typed. */
export function confirm({ title, says, name, action, run, done }) {
  dialog(title, (close) => {
    const outcome = h("div", { class: "stack" });
    const button = h("button", { class: "danger", disabled: Boolean(name) }, action);
    const input = h("input", { autocomplete: "off", spellcheck: "false", autofocus: true, oninput: () => { button.disabled = input.value !== name; } });
    const submit = async (event) => {
      event.preventDefault();
      if (button.disabled) return;
      button.disabled = true;
      try {
        const result = await run();
        close();
        done?.(result);
      } catch (error) {
        button.disabled = false;
        put(outcome, problem(error));
      }
    };
    return h("form", { onsubmit: submit },
      h("h1", null, title),
      says,
      name && h("label", null, h("span", null, "To confirm, type ", h("code", null, name)), input),
      outcome,
      h("div", { class: "row end" }, h("button", { type: "button", onclick: close }, "Cancel"), button));
  });
}

/** A unified diff with its changed lines marked. */
export function diff(text) {
  return h("pre", { tabindex: "0", "aria-label": "Difference" }, text.split("\n").map((line) => {
    const kind = /^\+(?!\+\+)/.test(line) ? "add" : /^-(?!--)/.test(line) ? "del" : "";
    return kind ? h("span", { class: kind }, `${line}\n`) : `${line}\n`;
  }));
}

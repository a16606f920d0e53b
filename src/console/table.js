// Tables. Only a page of rows is in the document at a time, so that their number does not matter.

import { h, number, plural, problem, put } from "./dom.js";

const PAGE = 100;
const FEW = 7;

function frame(columns, { filter, placeholder, onfilter, onsort, label, hasFilter = true }) {
  const body = h("tbody");
  const heads = columns.map((column) => {
    const name = column.sort && onsort
      ? h("button", { type: "button", onclick: () => onsort(column) }, column.name)
      : column.name;
    return h("th", { scope: "col", class: column.number && "num" }, name);
  });
  const input = h("input", { type: "search", value: filter ?? "", placeholder, "aria-label": placeholder, "data-search": true, oninput: () => onfilter(input.value) });
  const foot = h("div", { class: "row small muted" });
  const scroll = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label ?? placeholder }, h("table", null, h("thead", null, h("tr", null, heads)), body));
  const mark = (column, down) => heads.forEach((head, at) => {
    if (columns[at] === column) head.setAttribute("aria-sort", down ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  });
  return { body, foot, input, mark, element: h("div", { class: "stack" }, hasFilter && h("div", { class: "row" }, input), scroll, foot) };
}

function rowOf(columns, row) {
  return h("tr", null, columns.map((column) => {
    const shown = column.show(row);
    return h("td", { class: column.number ? "num" : column.wide ? "wide" : null }, shown ?? "");
  }));
}

const nothing = (columns, children) => h("tr", null, h("td", { colspan: columns.length }, h("div", { class: "none" }, children)));

function pager(foot, text, back, forth) {
  put(foot, h("span", null, text), (back || forth) && [
    h("button", { type: "button", disabled: !back, onclick: back }, "Previous"),
    h("button", { type: "button", disabled: !forth, onclick: forth }, "Next"),
  ]);
}

/** A table of rows that are all here. `text` of a column is what the filter and the order go by. */
export function table(rows, columns, { placeholder = "Filter", empty, filter = "", onfilter, label } = {}) {
  const texts = rows.map((row) => columns.map((column) => String(column.text?.(row) ?? "")).join("\n").toLowerCase());
  let page = 0;
  let found = rows;
  let order = null;
  let down = false;
  const parts = frame(columns, {
    filter, placeholder, label,
    // A few rows are seen at once.
    hasFilter: rows.length > FEW || filter !== "",
    onfilter: (text) => { onfilter?.(text); look(text); },
    onsort: (column) => { down = order === column && !down; order = column; parts.mark(column, down); look(parts.input.value); },
  });
  const show = () => {
    const from = page * PAGE;
    const shown = found.slice(from, from + PAGE);
    put(parts.body, shown.length ? shown.map((row) => rowOf(columns, row))
      : nothing(columns, rows.length ? "Nothing fits the filter." : empty ?? "There is nothing here."));
    const all = found.length === rows.length ? plural(rows.length, "row") : `${number(found.length)} of ${plural(rows.length, "row")}`;
    const turn = (by) => () => { page += by; show(); };
    parts.foot.hidden = rows.length <= FEW;
    pager(parts.foot, found.length > PAGE ? `${number(from + 1)} to ${number(from + shown.length)} of ${all}` : all,
      page > 0 && turn(-1), from + PAGE < found.length && turn(1));
  };
  const look = (text) => {
    const wanted = text.toLowerCase().split(/\s+/).filter(Boolean);
    found = rows.filter((_, at) => wanted.every((word) => texts[at].includes(word)));
    if (order) {
      const value = order.sort === true ? order.text : order.sort;
      found = [...found].sort((a, b) => compare(value(a), value(b)) * (down ? -1 : 1));
    }
    page = 0;
    show();
  };
  look(filter);
  return parts.element;
}

function compare(a, b) {
  return typeof a === "number" && typeof b === "number" ? a - b : String(a ?? "").localeCompare(String(b ?? ""));
}

/** A table whose rows the proxy gives page by page: `load` gets filter and `after`, and gives
 *  `{ rows, next, total }`. */
export function pages(load, columns, { placeholder = "Filter", empty, filter = "", onfilter, label } = {}) {
  let before = [];
  let after = "";
  let asked = 0;
  let waiting;
  const parts = frame(columns, {
    filter, placeholder, label,
    onfilter: (text) => {
      onfilter?.(text);
      clearTimeout(waiting);
      waiting = setTimeout(() => { before = []; after = ""; show(); }, 200);
    },
  });
  const show = async () => {
    const mine = asked += 1;
    parts.body.setAttribute("aria-busy", "true");
    try {
      const { rows, next, total } = await load({ filter: parts.input.value.trim(), after });
      if (mine !== asked) return;
      put(parts.body, rows.length ? rows.map((row) => rowOf(columns, row))
        : nothing(columns, parts.input.value ? "Nothing fits the filter." : empty ?? "There is nothing here."));
      const from = before.length * PAGE;
      const text = total === undefined ? plural(rows.length, "row") : total > PAGE ? `${number(from + 1)} to ${number(from + rows.length)} of ${number(total)}` : plural(total, "row");
      pager(parts.foot, text,
        before.length > 0 && (() => { after = before.pop(); show(); }),
        next && (() => { before.push(after); after = next; show(); }));
    } catch (error) {
      if (mine === asked) put(parts.body, nothing(columns, problem(error, show)));
    }
    parts.body.removeAttribute("aria-busy");
  };
  put(parts.body, Array.from({ length: 4 }, () => h("tr", null, h("td", { colspan: columns.length }, h("div", { class: "bone" })))));
  show();
  parts.element.reload = show;
  return parts.element;
}

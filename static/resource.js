/** A resource: its rows, live, as the query in the URL has them. */

import { live } from "./diorama.js";
import { badge, button, field, h, link, number, select, trouble } from "./dom.js";
import { Grid } from "./grid.js";
import * as queries from "./query.js";
import { at, options, read, segment } from "./session.js";

/** @typedef {import("./query.js").Column} Column */

/** @type {import("./explorer.js").Page} */
export async function resource(host, { parts: [name], query }) {
  const path = `/${segment(name)}`;
  const schema = await read(`${path}/_schema`);
  const columns = /** @type {Column[]} */ (schema.columns.filter((/** @type {Column} */ { flags }) => !flags.includes("hidden")));
  const chosen = choice(columns, query.get("select"), schema.id);
  const go = (/** @type {URLSearchParams} */ next) => {
    const text = queries.readable(next);
    location.hash = `#${path}${text && `?${text}`}`;
  };
  const change = (/** @type {string} */ parameter, /** @type {string} */ value) => {
    const next = new URLSearchParams(query);
    if (value) next.set(parameter, value);
    else next.delete(parameter);
    go(next);
  };

  const count = h("strong", null, "…");
  const state = h("span", null, badge("loading", "soft"));
  const news = h("span", { class: "soft", role: "status" });
  const problem = h("div", null);
  const grid = new Grid({
    label: `Rows of ${name}`,
    id: schema.id,
    href: (id) => `#${path}/${segment(id)}`,
    onMove: (offset, limit) => rows?.move(offset, limit),
  });
  host.append(
    h("div", { class: "title" },
      h("h1", null, name),
      h("p", null, count, " rows ", state, " ", news),
      h("p", { class: "actions" }, link("Events", `#${path}/events`), share(path, query), newRow(path, schema))),
    tools(query, columns, chosen, schema.id, change, go),
    problem,
    grid.element,
  );
  grid.setColumns(chosen, [sortRow(chosen, query.get("order") ?? "", (order) => change("order", order)), filterRow(chosen, query, change)]);

  const shown = new URLSearchParams(query);
  for (const each of ["limit", "offset", "after"]) shown.delete(each);
  const [offset, limit] = grid.page();
  const rows = live(at(path), new URLSearchParams([...shown, ["offset", `${offset}`], ["limit", `${limit}`]]), {
    ...options(),
    onChange: (found, { total, offset, frames }) => {
      problem.replaceChildren();
      count.textContent = number(total);
      const inserted = new Set(frames.filter(({ type }) => type === "RecordInserted").map(({ id }) => String(id)));
      const left = frames.filter(({ type }) => type === "RecordRemoved").length;
      const changed = grid.show(found, offset, total, inserted);
      const said = [changed && `${changed} changed`, inserted.size && `${inserted.size} came`, left && `${left} left`].filter(Boolean);
      if (said.length) news.textContent = said.join(", ");
    },
    onState: ({ status, transport, error }) => {
      state.replaceChildren(badge(status, status === "live" ? "good" : status === "failed" ? "bad" : "busy"));
      state.title = transport ? `by ${transport}` : "";
      if (status === "failed") problem.replaceChildren(trouble(error));
    },
  });
  return () => {
    rows.close();
    grid.close();
  };
}

/** The columns that are shown; the id always, because it leads to the row. @param {Column[]} columns @param {string | null} selected @param {string} id */
function choice(columns, selected, id) {
  if (!selected) return columns;
  const names = selected.split(",").map((name) => name.replace(/^"|"$/g, ""));
  return columns.filter(({ name }) => name === id || names.includes(name));
}

/**
 * @param {URLSearchParams} query @param {Column[]} columns @param {Column[]} chosen @param {string} id
 * @param {(parameter: string, value: string) => void} change @param {(next: URLSearchParams) => void} go
 */
function tools(query, columns, chosen, id, change, go) {
  const words = h("input", { type: "search", value: query.get("q") ?? "", placeholder: "Search all columns" });
  const written = h("input", { value: queries.readable(query), spellcheck: false, autocapitalize: "off", placeholder: "price=lt.300&order=name", class: "code" });
  const toggle = (/** @type {Column} */ column) => {
    const names = columns.filter((each) => (each === column) !== chosen.includes(each)).map(({ name }) => queries.quoted(name));
    change("select", names.length === columns.length ? "" : names.join(","));
  };
  const box = (/** @type {Column} */ column) =>
    h("label", null,
      h("input", { type: "checkbox", checked: chosen.includes(column), disabled: column.name === id, onchange: () => toggle(column) }),
      ` ${column.name}`, h("span", { class: "soft" }, ` ${column.type}`));
  const onsubmit = (/** @type {() => void} */ act) => (/** @type {Event} */ event) => {
    event.preventDefault();
    act();
  };
  return h("div", { class: "tools" },
    h("form", { role: "search", onsubmit: onsubmit(() => change("q", words.value)) }, field("Search", words)),
    h("form", { class: "wide", onsubmit: onsubmit(() => go(new URLSearchParams(written.value))) }, field("Query", written)),
    menu(`Columns ${chosen.length}/${columns.length}`, columns.map(box)));
}

/** What is opened by a button, and closed by Escape or a click elsewhere. @param {string} text @param {any} content */
function menu(text, content) {
  const box = h("details", { class: "menu" }, h("summary", null, text), h("div", null, content));
  const close = (/** @type {boolean} */ focus) => {
    box.open = false;
    if (focus) box.querySelector("summary").focus();
  };
  box.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => event.key === "Escape" && close(true));
  box.addEventListener("focusout", (/** @type {FocusEvent} */ event) => {
    if (event.relatedTarget && !box.contains(event.relatedTarget)) close(false);
  });
  return box;
}

/** The query, to take elsewhere. @param {string} path @param {URLSearchParams} query */
function share(path, query) {
  const text = queries.readable(query);
  const url = `${at(path)}${text && `?${text}`}`;
  const guarded = Boolean(options().token);
  const said = h("span", { class: "soft why", role: "status" });
  const copy = (/** @type {string} */ name, /** @type {string} */ what) =>
    button(name, async () => {
      // Pages of plain http that are not local have no clipboard.
      const copied = await navigator.clipboard?.writeText(what).then(() => true, () => false);
      said.textContent = copied ? "copied" : what;
    });
  return menu("Copy", [
    copy("URL", url),
    copy("curl", queries.asCurl(url, guarded)),
    copy("fetch", queries.asFetch(url, guarded)),
    copy("Query string", text),
    said,
  ]);
}

/** @param {string} path @param {any} schema */
const newRow = (path, schema) => schema.capabilities.refused.includes("insert") ? null : link("New row", `#${path}/_new`);

/** @param {Column[]} columns @param {string} order @param {(order: string) => void} sort */
function sortRow(columns, order, sort) {
  const head = (/** @type {Column} */ { name, type }) => {
    const way = queries.direction(order, name);
    const sign = { ascending: " ↑", descending: " ↓", none: "" }[way];
    const numeric = ["integer", "number", "decimal"].includes(type);
    return h("th", { scope: "col", "aria-sort": way, class: numeric ? "number" : undefined },
      button(name + sign, () => sort(queries.nextOrder(order, name)), { class: "bare" }));
  };
  return h("tr", null, columns.map(head));
}

/** @param {Column[]} columns @param {URLSearchParams} query @param {(parameter: string, value: string) => void} change */
function filterRow(columns, query, change) {
  const control = (/** @type {Column} */ column) => {
    const parameter = queries.parameter(column.name);
    const all = query.getAll(parameter);
    if (all.length > 1) return h("td", null, h("span", { class: "code", title: all.join(" ") }, all.join(" ")));
    const [first, ...others] = queries.operators(column);
    const filter = all.length ? queries.parseFilter(all[0], column) : { operator: first[0], value: "" };
    const apply = () => change(parameter, queries.formatFilter({ operator: sign.value, value: value.value }));
    const choices = /** @type {[string, string][]} */ ([first, ...others, ["", "…"]]);
    const sign = select(choices, filter.operator, { "aria-label": `Operator for ${column.name}`, onchange: () => (value.value || sign.value.includes(".") || all.length) && apply() });
    const value = h("input", { value: filter.value, "aria-label": `Filter ${column.name}`, onchange: apply });
    return h("td", null, h("div", { class: "filter" }, sign, value));
  };
  return h("tr", { class: "filters" }, columns.map(control));
}


/**
 * A resource: its rows, live, as the query in the URL has them.
 *
 * The URL is the only place where the query is kept. Controls show it, and change it when somebody leaves them or presses Enter; what
 * somebody is writing stays, whatever arrives meanwhile.
 */

import { live, Problem } from "./diorama.js";
import { badge, button, failure, field, h, link, number, select, trouble } from "./dom.js";
import { Grid } from "./grid.js";
import * as queries from "./query.js";
import { at, isUnknown, may, options, read, reasons, segment } from "./session.js";
import { signIn } from "./sign-in.js";
import { Written } from "./written.js";

/** @typedef {import("./query.js").Column} Column */

/** @type {import("./explorer.js").Page} */
export async function resource(host, { parts: [name], query }, failed, rights) {
  const path = `/${segment(name)}`;
  const schema = await read(`${path}/_schema`);
  const view = new View(name, path, schema, failed, rights);
  host.replaceChildren(...view.elements);
  view.show(query);
  return { end: () => view.end(), change: (place) => view.show(place.query) };
}

/** The query in the URL at this moment. */
const now = () => queries.parsePlace(location.hash).query;

class View {
  /**
   * @param {string} name @param {string} path @param {any} schema @param {(error: unknown) => void} failed
   * @param {import("./session.js").Rights} rights
   */
  constructor(name, path, schema, failed, rights) {
    this.name = name;
    this.path = path;
    this.id = schema.id;
    this.failed = failed;
    this.follows = may(rights, "events", name);
    this.columns = /** @type {Column[]} */ (schema.columns.filter((/** @type {Column} */ { flags }) => !flags.includes("hidden")));
    this.chosen = /** @type {Column[]} */ ([]);
    this.rows = /** @type {ReturnType<typeof live> | undefined} */ (undefined);
    this.asked = /** @type {string | undefined} */ (undefined);
    this.count = h("strong", null, "…");
    this.state = h("span", null, badge("loading", "soft"));
    this.news = h("span", { class: "soft", role: "status" });
    this.problem = h("div", null);
    this.grid = new Grid({
      label: `Rows of ${name}`,
      id: schema.id,
      href: (id) => queries.placeOfRow(name, id),
      onMove: (offset, limit) => this.rows?.move(offset, limit),
    });
    this.heads = new Map(this.columns.map((column) => [column.name, new Head(column, (parameter, value) => this.change(parameter, value))]));
    this.words = new Written(h("input", { type: "search", placeholder: "Search all columns" }), (text) => this.change("q", text));
    this.written = new Written(
      h("input", { spellcheck: false, autocapitalize: "off", placeholder: "price=lt.300&order=name", class: "code" }),
      (text) => this.go(new URLSearchParams(text)));
    this.boxes = new Map(this.columns.map((column) => [column.name, this.#box(column)]));
    this.summary = h("summary", null, "Columns");
    this.elements = [
      h("div", { class: "title" },
        h("h1", null, name),
        h("p", null, this.count, " rows ", this.state, " ", this.news),
        h("p", { class: "actions" },
          this.follows ? link("Events", `#${path}/events`) : button("Read again", () => this.rows?.move(...this.grid.page())),
          share(path, rights.credentials && rights.name !== null), newRow(path, schema))),
      h("div", { class: "tools" },
        h("div", { role: "search" }, field("Search", this.words.control)),
        h("div", { class: "wide" }, field("Query", this.written.control)),
        menu(this.summary, this.columns.map(({ name, type }) =>
          h("label", null, this.boxes.get(name), ` ${name}`, h("span", { class: "soft" }, ` ${type}`))))),
      this.problem,
      this.grid.element,
    ];
  }

  /** @param {URLSearchParams} next */
  go(next) {
    const text = queries.readable(next);
    location.hash = `#${this.path}${text && `?${text}`}`;
  }

  /** Changes one parameter of the query in the URL. @param {string} parameter @param {string} value */
  change(parameter, value) {
    const next = now();
    if (value) next.set(parameter, value);
    else next.delete(parameter);
    this.go(next);
  }

  /** @param {Column} column */
  #box({ name }) {
    const toggle = () => {
      const chosen = this.#choice(now());
      const names = this.columns.map((each) => each.name).filter((each) => (each === name) !== chosen.some((other) => other.name === each));
      this.change("select", names.length === this.columns.length ? "" : names.map(queries.quoted).join(","));
    };
    return h("input", { type: "checkbox", disabled: name === this.id, onchange: toggle });
  }

  /** The columns that are shown; the id always, because it leads to the row. @param {URLSearchParams} query */
  #choice(query) {
    const select = query.get("select") ?? "";
    if (queries.isAll(select)) return this.columns;
    const names = queries.namesOf(select);
    return this.columns.filter(({ name }) => name === this.id || names.includes(name));
  }

  /** Shows a query: in the controls, and its rows. @param {URLSearchParams} query */
  show(query) {
    const chosen = this.#choice(query);
    this.words.show(query.get("q") ?? "");
    this.written.show(queries.readable(query));
    for (const { name } of this.columns) this.boxes.get(name).checked = chosen.some((each) => each.name === name);
    this.summary.textContent = `Columns ${chosen.length}/${this.columns.length}`;
    for (const head of this.heads.values()) head.show(query);
    if (chosen.map(({ name }) => name).join("\0") !== this.chosen.map(({ name }) => name).join("\0")) {
      this.chosen = chosen;
      const row = (/** @type {"sort" | "filter"} */ part) =>
        h("tr", { class: part === "filter" ? "filters" : undefined }, chosen.map(({ name }) => this.heads.get(name)?.[part]));
      staying(() => this.grid.setColumns(chosen, [row("sort"), row("filter")]));
    }
    this.#ask(query);
  }

  /** Follows the rows of a query, if they are not those that are followed. @param {URLSearchParams} query */
  #ask(query) {
    const shown = new URLSearchParams(query);
    for (const each of ["limit", "offset", "after"]) shown.delete(each);
    if (shown.has("select")) shown.set("select", queries.withId(shown.get("select") ?? "", this.id));
    const asked = `${shown}`;
    if (asked === this.asked) return;
    this.asked = asked;
    this.rows?.close();
    this.grid.begin();
    this.problem.replaceChildren();
    this.news.textContent = "";
    const isOld = () => this.asked !== asked;
    const [offset, limit] = this.grid.page();
    this.rows = live(at(this.path), new URLSearchParams([...shown, ["offset", `${offset}`], ["limit", `${limit}`]]), {
      ...options(),
      renew: signIn,
      follow: this.follows,
      onChange: (found, about) => isOld() || this.#take(found, about),
      onState: (state) => isOld() || this.#say(state, isOld),
    });
  }

  /** @param {import("./diorama.js").Row[]} found @param {{ total: number, offset: number, frames: import("./diorama.js").Frame[] }} about */
  #take(found, { total, offset, frames }) {
    this.problem.replaceChildren();
    this.count.textContent = number(total);
    const inserted = new Set(frames.filter(({ type }) => type === "RecordInserted").map(({ id }) => String(id)));
    const left = frames.filter(({ type }) => type === "RecordRemoved").length;
    const changed = this.grid.show(found, offset, total, inserted);
    const said = [changed && `${changed} changed`, inserted.size && `${inserted.size} came`, left && `${left} left`].filter(Boolean);
    if (said.length) this.news.textContent = said.join(", ");
  }

  /** @param {import("./diorama.js").State} state @param {() => boolean} isOld */
  async #say({ status, transport, error }, isOld) {
    // The page has the columns and actions of other rules.
    if (error?.close === 4403) return this.failed(error);
    if (isUnknown(error) && status === "offline") return;
    const refused = error instanceof Problem;
    const word = status === "offline" && refused ? "not ready" : status === "loaded" ? "not followed" : status;
    this.state.replaceChildren(badge(word, status === "live" ? "good" : status === "failed" ? "bad" : "busy"));
    this.state.title = transport ? `by ${transport}` : "";
    if (isUnknown(error)) return this.failed(error);
    if (status === "live") this.problem.replaceChildren();
    if (status === "failed") this.problem.replaceChildren(trouble(error));
    if (status !== "offline" || !error) return;
    const why = await reasons(this.name);
    if (isOld() || this.state.textContent !== word) return;
    this.problem.replaceChildren(failure(error, why));
  }

  end() {
    this.asked = undefined;
    this.rows?.close();
    this.grid.close();
  }
}

/** Moves elements about; the one with the focus keeps it, and what is chosen in it. @param {() => void} move */
function staying(move) {
  const active = /** @type {any} */ (document.activeElement);
  const [from, to] = active?.tagName === "INPUT" ? [active.selectionStart, active.selectionEnd] : [null, null];
  move();
  if (!active?.isConnected || active === document.activeElement || active === document.body) return;
  active.focus({ preventScroll: true });
  if (from !== null) active.setSelectionRange(from, to);
}

/** The head of a column: what sorts by it, and what filters it. */
class Head {
  /** @param {Column} column @param {(parameter: string, value: string) => void} change */
  constructor(column, change) {
    this.column = column;
    this.parameter = queries.parameter(column.name);
    const numeric = ["integer", "number", "decimal"].includes(column.type);
    const order = () => change("order", queries.nextOrder(now().get("order") ?? "", column.name));
    this.button = button(column.name, order, { class: "bare" });
    this.sort = h("th", { scope: "col", "aria-sort": "none", class: numeric ? "number" : undefined }, this.button);
    const apply = () => change(this.parameter, queries.formatFilter({ operator: this.sign.value, value: this.value.control.value }));
    this.sign = select([...queries.operators(column), ["", "…"]], "", {
      "aria-label": `Operator for ${column.name}`,
      onchange: () => (this.value.control.value || this.sign.value.includes(".") || now().has(this.parameter)) && apply(),
    });
    this.sign.selectedIndex = 0;
    this.value = new Written(h("input", { "aria-label": `Filter ${column.name}` }), apply);
    this.controls = h("div", { class: "filter" }, this.sign, this.value.control);
    /** In place of the controls, where a column has several filters. */
    this.several = h("span", { class: "code" });
    this.filter = h("td", null, this.controls);
  }

  /** @param {URLSearchParams} query */
  show(query) {
    const way = queries.direction(query.get("order") ?? "", this.column.name);
    this.sort.setAttribute("aria-sort", way);
    this.button.textContent = this.column.name + { ascending: " ↑", descending: " ↓", none: "" }[way];
    const all = query.getAll(this.parameter);
    this.several.textContent = this.several.title = all.join(" ");
    const shown = all.length > 1 ? this.several : this.controls;
    if (!shown.isConnected) this.filter.replaceChildren(shown);
    if (all.length > 1) return;
    const filter = all.length ? queries.parseFilter(all[0], this.column) : undefined;
    // Who has chosen an operator and not yet a value finds it again; who is writing a value finds that.
    if (filter && !this.value.isBeingWritten) this.sign.value = filter.operator;
    else if (!filter && /^$|\./.test(this.sign.value)) this.sign.selectedIndex = 0;
    this.value.show(filter?.value ?? "");
  }
}

/** What is opened by a button, and closed by Escape or a click elsewhere. @param {HTMLElement} summary @param {any} content */
function menu(summary, content) {
  const box = h("details", { class: "menu" }, summary, h("div", null, content));
  const close = (/** @type {boolean} */ focus) => {
    box.open = false;
    if (focus) summary.focus();
  };
  box.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => event.key === "Escape" && close(true));
  box.addEventListener("focusout", (/** @type {FocusEvent} */ event) => {
    if (event.relatedTarget && !box.contains(event.relatedTarget)) close(false);
  });
  return box;
}

/** The query, to take elsewhere. @param {string} path @param {boolean} guarded whether it needs a token there */
function share(path, guarded) {
  const text = () => queries.readable(now());
  const url = () => `${at(path)}${text() && `?${text()}`}`;
  const said = h("span", { class: "soft why", role: "status" });
  const copy = (/** @type {string} */ name, /** @type {() => string} */ written) =>
    button(name, async () => {
      const what = written();
      // Pages of plain http that are not local have no clipboard.
      const copied = await navigator.clipboard?.writeText(what).then(() => true, () => false);
      said.textContent = copied ? "copied" : what;
    });
  return menu(h("summary", null, "Copy"), [
    copy("URL", url),
    copy("curl", () => queries.asCurl(url(), guarded)),
    copy("fetch", () => queries.asFetch(url(), guarded)),
    copy("Query string", text),
    said,
  ]);
}

/** @param {string} path @param {any} schema */
const newRow = (path, schema) => schema.capabilities.refused.includes("insert") ? null : link("New row", `#${path}/_new`);

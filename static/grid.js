/** A table of which only the rows in sight are there: it asks for others while it is scrolled. */

import { cell, visible } from "./cells.js";
import { h } from "./dom.js";
import { own } from "./json.js";

/** @typedef {import("./diorama.js").Row} Row */

const ROW = 32;
/** Browsers draw nothing beyond some tens of millions of pixels; higher tables are scrolled by proportion. */
const HIGHEST = 8_000_000;
/** Rows beyond what is in sight, on each side. */
const MORE = 30;

export class Grid {
  #rows = /** @type {Row[]} */ ([]);
  #offset = 0;
  #total = 0;
  #columns = /** @type {import("./query.js").Column[]} */ ([]);
  #anew = true;

  /**
   * @param {{ label: string, id: string, href: (id: string) => string, onMove: (offset: number, limit: number) => void }} about
   */
  constructor(about) {
    this.about = about;
    this.head = h("thead", null);
    this.body = h("tbody", null);
    // In place of the rows before and after, so that the table is as high as if it had all.
    this.before = h("tr", { "aria-hidden": true });
    this.after = h("tr", { "aria-hidden": true });
    const space = (/** @type {HTMLElement} */ row) => h("tbody", null, row);
    this.table = h("table", { class: "grid" }, this.head, space(this.before), this.body, space(this.after));
    this.element = h("div", { class: "viewport", tabIndex: 0, role: "region", "aria-label": about.label }, this.table);
    this.element.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    this.sizes = new ResizeObserver(() => this.#scrolled());
    this.sizes.observe(this.element);
  }

  close() {
    this.sizes.disconnect();
  }

  /** What is shown next is another list: from its beginning, and no change of this one. */
  begin() {
    this.#anew = true;
    this.element.scrollTop = 0;
  }

  /** @param {import("./query.js").Column[]} columns @param {HTMLElement[]} head rows of the header */
  setColumns(columns, head) {
    this.#columns = columns;
    this.head.replaceChildren(...head);
    const width = columns.reduce((sum, column) => sum + widthOf(column), 0);
    this.table.style.minWidth = `${width}px`;
    const group = h("colgroup", null, columns.map((column) => {
      const col = h("col", null);
      col.style.width = `${widthOf(column)}px`;
      return col;
    }));
    this.table.querySelector("colgroup")?.remove();
    this.table.prepend(group);
    if (this.#rows.length) this.show(this.#rows, this.#offset, this.#total);
  }

  /**
   * Shows rows that begin at `offset`; says which cells of rows that were there before differ, and which rows are new.
   * @param {Row[]} rows @param {number} offset @param {number} total @param {Set<string>} [entered] ids
   * @returns {number} rows with cells that differ.
   */
  show(rows, offset, total, entered = new Set()) {
    const before = new Map((this.#anew ? [] : this.#rows).map((row) => [this.#idOf(row), row]));
    const isNew = (/** @type {string} */ id) => !this.#anew && entered.has(id) && !before.has(id);
    this.#rows = rows;
    this.#offset = offset;
    this.#total = total;
    const columns = this.#columns;
    let changed = 0;
    const line = (/** @type {Row} */ row, /** @type {number} */ at) => {
      const id = this.#idOf(row);
      const old = before.get(id);
      const differs = (/** @type {string} */ name) => old !== undefined && old !== row && cell(own(old, name)) !== cell(own(row, name));
      if (columns.some(({ name }) => differs(name))) changed += 1;
      return h("tr", { "aria-rowindex": offset + at + 2, class: isNew(id) ? "entered" : undefined },
        columns.map((column) => this.#cell(row, id, column, differs(column.name))));
    };
    const focused = this.body.contains(document.activeElement) && document.activeElement?.getAttribute("href");
    // Before the rows change: a table that is shorter for a moment is scrolled back.
    this.#place();
    this.body.replaceChildren(...rows.map(line));
    this.#anew = false;
    if (focused) this.body.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
    this.table.setAttribute("aria-rowcount", String(total + 1));
    return changed;
  }

  /** @param {Row} row @param {string} id @param {import("./query.js").Column} column @param {boolean} differs */
  #cell(row, id, column, differs) {
    const value = own(row, column.name);
    const text = cell(value);
    const kind = [isNumeric(column) && "number", differs && "flash", (value === null || value === undefined) && "null"];
    const classes = kind.filter(Boolean).join(" ") || undefined;
    if (column.name !== this.about.id) return h("td", { class: classes, title: text.length > 24 ? text : undefined }, text);
    return h("th", { scope: "row", class: classes }, h("a", { href: this.about.href(id) }, visible(text)));
  }

  /** @param {Row} row */
  #idOf(row) {
    return String(own(row, this.about.id));
  }

  #visible() {
    return Math.ceil(this.element.clientHeight / ROW) || 20;
  }

  /** The first row in sight. */
  #first() {
    const { scrollTop, clientHeight } = this.element;
    if (this.#total * ROW <= HIGHEST) return Math.floor(scrollTop / ROW);
    // The head lies over the rows, and is scrolled with them.
    const head = this.head.offsetHeight;
    const part = Math.min(1, scrollTop / Math.max(1, HIGHEST + head - clientHeight));
    return Math.floor(part * Math.max(0, this.#total - Math.floor((clientHeight - head) / ROW)));
  }

  #scrolled() {
    const first = this.#first();
    const last = Math.min(this.#total, first + this.#visible());
    if (first >= this.#offset && last <= this.#offset + this.#rows.length) return this.#place();
    this.about.onMove(...this.page());
  }

  /** The rows to ask for: offset and count. @returns {[number, number]} */
  page() {
    return [Math.max(0, this.#first() - MORE), this.#visible() + 2 * MORE];
  }

  /** Puts the rows where they would be among all. */
  #place() {
    const all = Math.min(HIGHEST, this.#total * ROW);
    const exact = this.#total * ROW <= HIGHEST;
    const before = exact ? this.#offset * ROW : Math.max(0, this.element.scrollTop - (this.#first() - this.#offset) * ROW);
    this.before.style.height = `${before}px`;
    this.after.style.height = `${Math.max(0, all - before - this.#rows.length * ROW)}px`;
  }
}

/** @param {import("./query.js").Column} column */
const isNumeric = ({ type }) => ["integer", "number", "decimal"].includes(type);

/** @param {import("./query.js").Column} column */
function widthOf(column) {
  return isNumeric(column) || column.type === "boolean" ? 150 : 220;
}

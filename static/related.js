/** Rows that are related to one row: a link to that of each relation to one, and to the list of each relation to many. */

import { cell, visible } from "./cells.js";
import { h, link, number, panel, table, trouble } from "./dom.js";
import { own } from "./json.js";
import { isWord, parameter, placeOfRow, quoted } from "./query.js";
import { read, segment } from "./session.js";

/** @typedef {{ relation: string, target: string, column: string, kind: "one" | "many" }} Reference */
/** @typedef {import("./diorama.js").Row} Row */

/** A panel; empty while there are no relations. */
export class Related {
  /** @param {string} name of the resource @param {string} id @param {{ references: Reference[] }} schema of the resource */
  constructor(name, id, { references }) {
    this.path = `/${segment(name)}/${segment(id)}`;
    this.id = id;
    // The path of a row with such an id is a route of its own.
    this.references = isWord(id) ? [] : references;
    this.element = h("div", null);
    this.turn = 0;
  }

  /** Asks for the related rows, and shows those of the newest answer. */
  async look() {
    if (!this.references.length) return;
    this.turn += 1;
    const { turn } = this;
    const shown = await this.#find().catch((error) => trouble(error));
    if (turn === this.turn) this.element.replaceChildren(panel("Related rows", shown));
  }

  async #find() {
    const items = this.references.map(({ relation, kind }) => `${quoted(relation)}(${kind === "one" ? "*" : "count"})`);
    const row = await read(`${this.path}?select=${segment(items.join(","))}`);
    const lines = await Promise.all(this.references.map((reference) => this.#line(reference, own(row, reference.relation))));
    return table("Related rows", ["Relation", "Resource", "Rows"], lines);
  }

  /** @param {Reference} reference @param {any} found one row or null, or the number of rows in an array */
  async #line({ relation, target, column, kind }, found) {
    const cells = kind === "many"
      ? link(number(found[0].count), `#/${segment(target)}?${new URLSearchParams([[parameter(column), `eq.${this.id}`]])}`)
      : found ? await titled(target, found) : h("span", { class: "soft" }, "none");
    return h("tr", null, h("td", null, relation), h("td", null, target), h("td", null, cells));
  }
}

/** A link to a row, with its title. @param {string} target @param {Row} row */
async function titled(target, row) {
  const schema = await read(`/${segment(target)}/_schema`);
  const id = String(own(row, schema.id));
  const columns = /** @type {import("./query.js").Column[]} */ (schema.columns);
  const title = columns.find(({ flags }) => flags.includes("title")) ?? columns.find(({ name }) => name === "title" || name === "name");
  const text = title ? cell(own(row, title.name)) : "";
  return [link(visible(text || id), placeOfRow(target, id)), text ? h("span", { class: "soft" }, ` ${visible(id)}`) : null];
}

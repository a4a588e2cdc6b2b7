/** One row: its fields, what becomes of changes, and its history. */

import { get, insert, patch, Problem, remove, subscribe } from "./diorama.js";
import { badge, button, cell, clock, field, h, link, panel, select, since, table, trouble } from "./dom.js";
import { at, options, read, segment, send } from "./session.js";

/** @typedef {import("./diorama.js").Row} Row */
/** @typedef {import("./query.js").Column} Column */

/** Events that the history shows. */
const MOST = 200;

/** @type {import("./explorer.js").Page} */
export async function record(host, { parts: [name, id] }) {
  const path = `/${segment(name)}`;
  const schema = await read(`${path}/_schema`);
  const editor = new Editor(schema, path, id);
  host.append(h("p", null, link(`← ${name}`, `#${path}`)), h("h1", null, id === "_new" ? `New row of ${name}` : id), editor.element);
  if (id === "_new") return editor.begin({}, undefined);

  const { record: row, etag } = await get(at(path), id, options());
  editor.begin(row ?? {}, etag);
  const history = new History();
  host.append(panel("Operations", editor.operations.element), panel("History", history.element));
  await editor.operations.find();
  const events = subscribe(`${at(path)}/${segment(id)}`, "", {
    ...options(),
    since: "earliest",
    onFrame(frame) {
      history.add(frame);
      if (frame.type === "WriteCommitted" || frame.type === "WriteFailed") editor.operations.find();
      if (frame.record || frame.type === "RecordRemoved" || frame.type === "reset") editor.look();
    },
  });
  return () => events.close();
}

/** The form. It is filled with one version of the row, and saves what differs from that version only if it is the newest. */
class Editor {
  /** @param {any} schema @param {string} path @param {string} id */
  constructor(schema, path, id) {
    this.path = path;
    this.id = id;
    this.columns = /** @type {Column[]} */ (schema.columns);
    this.idColumn = schema.id;
    this.refused = schema.capabilities.refused;
    this.operations = new Operations(path, id);
    this.news = h("div", { "aria-live": "polite" });
    this.element = h("div", null);
    this.base = /** @type {Row} */ ({});
    this.etag = /** @type {string | undefined} */ (undefined);
    this.controls = /** @type {Map<string, any>} */ (new Map());
  }

  get isNew() {
    return this.id === "_new";
  }

  /** Fills the form with a version. @param {Row} row @param {string | undefined} etag */
  begin(row, etag) {
    this.base = row;
    this.etag = etag;
    this.controls = new Map(this.#all(row).map((column) => [column.name, this.#control(column, row[column.name])]));
    const fields = [...this.controls].map(([name, control]) => field(name, control));
    const canSave = !this.refused.includes(this.isNew ? "insert" : "update");
    const canDelete = !this.isNew && !this.refused.includes("delete");
    const onsubmit = (/** @type {Event} */ event) => {
      event.preventDefault();
      this.#save();
    };
    this.element.replaceChildren(
      h("form", { class: "panel fields", onsubmit },
        fields,
        h("p", { class: "actions" },
          canSave && button(this.isNew ? "Add" : "Save", () => {}, { type: "submit", class: "primary" }),
          canDelete && button("Delete", () => this.#remove(), { class: "danger" }),
          !canSave && h("span", { class: "soft" }, "This resource cannot be changed."))),
      this.news,
    );
  }

  /** Columns of the schema, and what else the row has. @param {Row} row @returns {Column[]} */
  #all(row) {
    const names = new Set(this.columns.map(({ name }) => name));
    const others = Object.keys(row).filter((name) => !names.has(name));
    return [...this.columns, ...others.map((name) => ({ name, type: "json", flags: [] }))];
  }

  /** @param {Column} column @param {unknown} value */
  #control(column, value) {
    const text = cell(value);
    const readOnly = column.name === this.idColumn && !this.isNew;
    const more = { name: column.name, "data-type": column.type, readOnly, autocomplete: "off" };
    if (column.type === "boolean") {
      return select([["", ""], ["true", "true"], ["false", "false"]], text, more);
    }
    if (column.type === "json" || text.length > 60) return h("textarea", { ...more, value: text, rows: 3 });
    const inputMode = ["integer", "number", "decimal"].includes(column.type) ? "decimal" : "text";
    return h("input", { ...more, value: text, inputMode });
  }

  /** What the form says and its version does not. */
  #changes() {
    const changes = /** @type {Row} */ ({});
    for (const [name, control] of this.controls) {
      if (control.value !== cell(this.base[name])) changes[name] = typed(control.value, control.dataset.type);
    }
    return changes;
  }

  async #save() {
    const changes = this.#changes();
    if (!Object.keys(changes).length) return this.news.replaceChildren(h("p", { class: "soft" }, "Nothing has changed."));
    await this.#try(async () => {
      if (this.isNew) {
        const { record } = await insert(at(this.path), changes, options());
        location.hash = `#${this.path}/${segment(record?.[this.idColumn] ?? "")}`;
        return;
      }
      const done = await patch(at(this.path), this.id, changes, { ...options(), ifMatch: this.etag });
      this.news.replaceChildren(h("p", { class: "soft" }, "Accepted."));
      const newest = await get(at(this.path), this.id, options());
      this.begin(newest.record ?? {}, newest.etag);
      await this.operations.find();
      return done;
    }, changes);
  }

  #remove() {
    const sure = button("Delete this row", () => this.#try(async () => {
      await remove(at(this.path), this.id, { ...options(), ifMatch: this.etag });
      location.hash = `#${this.path}`;
    }), { class: "danger" });
    this.news.replaceChildren(h("p", { class: "actions" }, sure, button("Keep it", () => this.news.replaceChildren())));
    sure.focus();
  }

  /** @param {() => Promise<unknown>} act @param {Row} [changes] */
  async #try(act, changes) {
    try {
      await act();
    } catch (error) {
      const conflict = error instanceof Problem && /** @type {any} */ (error).status === 412;
      if (conflict) await this.#conflict(changes ?? {});
      else this.news.replaceChildren(trouble(error), fieldErrors(error));
    }
  }

  /** Somebody was faster: both versions, and a choice. @param {Row} mine */
  async #conflict(mine) {
    const { record: theirs = {}, etag } = await get(at(this.path), this.id, options());
    const names = [...this.controls.keys()].filter((name) => name in mine || cell(theirs[name]) !== cell(this.base[name]));
    const line = (/** @type {string} */ name) =>
      h("tr", null, h("th", { scope: "row" }, name), ...[this.base, theirs, { ...theirs, ...mine }].map((row) => h("td", null, cell(row[name]))));
    const keep = () => {
      this.begin(theirs, etag);
      for (const [name, value] of Object.entries(mine)) this.controls.get(name).value = cell(value);
      this.news.replaceChildren();
      this.#save();
    };
    this.news.replaceChildren(h("section", { class: "panel conflict", role: "alert" },
      h("h2", null, "Somebody changed this row meanwhile"),
      table("Both versions", ["Column", "You began with", "It is now", "You would make it"], names.map(line)),
      h("p", { class: "actions" },
        button("Save mine over it", keep, { class: "primary" }),
        button("Take theirs", () => {
          this.begin(theirs, etag);
          this.news.replaceChildren();
        }))));
  }

  /** The row may have changed: the form shows it, unless somebody is writing in it. */
  async look() {
    if (Object.keys(this.#changes()).length) return;
    const found = await get(at(this.path), this.id, options()).catch((error) => error);
    if (found instanceof Problem && /** @type {any} */ (found).status === 404) {
      this.news.replaceChildren(h("p", { class: "trouble", role: "alert" }, "This row is deleted."));
    } else if (found.record && found.etag !== this.etag && !Object.keys(this.#changes()).length) {
      const focused = /** @type {any} */ (document.activeElement)?.name;
      const before = this.base;
      this.begin(found.record, found.etag);
      for (const [name, control] of this.controls) {
        if (cell(before[name]) !== cell(found.record[name])) control.classList.add("flash");
      }
      if (focused) this.controls.get(focused)?.focus();
    }
  }
}

/** The value of what was written into a field. @param {string} text @param {string} type */
function typed(text, type) {
  if (text === "") return null;
  if (type === "boolean") return text === "true";
  if (["integer", "number"].includes(type) && Number.isFinite(Number(text))) return Number(text);
  if (type !== "json") return text;
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** @param {any} error */
const fieldErrors = (error) =>
  h("ul", null, Object.entries(error?.errors ?? {}).map(([name, text]) => h("li", null, h("strong", null, name), ` ${text}`)));

/** The writes of a row that have not just worked, and the newest one. */
class Operations {
  /** @param {string} path @param {string} id */
  constructor(path, id) {
    this.query = `/operations?dio=${path.slice(1)}&record=${segment(id)}&limit=10`;
    this.element = h("div", { "aria-live": "polite" });
    this.told = h("p", { class: "soft" });
  }

  async find() {
    try {
      const all = await read(this.query);
      this.element.replaceChildren(all.length ? operationTable(all, () => this.find()) : h("p", { class: "soft" }, "No writes are remembered."));
    } catch (error) {
      this.element.replaceChildren(trouble(error));
    }
  }
}

const KINDS = /** @type {Record<string, "good" | "bad" | "soft" | "busy">} */ ({
  applied: "good", failed: "bad", parked: "bad", discarded: "soft", queued: "busy", running: "busy", unknown: "busy",
});
/** What states mean to people. */
const WORDS = /** @type {Record<string, string>} */ ({ queued: "pending", running: "pending", applied: "confirmed" });

/**
 * Writes, with what can be done about them.
 * @param {any[]} all @param {() => unknown} again called when something was done
 */
export function operationTable(all, again) {
  const act = (/** @type {string} */ text, /** @type {string} */ method, /** @type {string} */ path) =>
    button(text, async (/** @type {any} */ event) => {
      const place = event.target.parentElement;
      try {
        await send(method, path);
        await again();
      } catch (error) {
        place.append(trouble(error));
      }
    });
  const line = (/** @type {any} */ op) =>
    h("tr", null,
      h("td", null, badge(WORDS[op.state] ?? op.state, KINDS[op.state] ?? "soft")),
      h("td", null, op.op),
      h("td", null, op.record ? link(op.record, `#/${segment(op.dio)}/${segment(op.record)}`) : op.dio),
      h("td", { title: op.created }, since(op.created)),
      h("td", { class: "number" }, String(op.attempts)),
      h("td", null,
        op.error && h("span", { class: "why" }, op.error.detail ?? cell(op.error)),
        op.state === "parked" && h("span", { class: "actions" },
          act("Retry", "POST", `/operations/${op.id}/retry`), act("Discard", "DELETE", `/operations/${op.id}`))));
  return table("Writes", ["State", "Write", "Row", "Accepted", "#Attempts", "Remarks"], all.map(line));
}

/** The events of one row, the newest first. */
class History {
  constructor() {
    this.list = h("ol", { class: "events" });
    this.element = this.list;
  }

  /** @param {import("./diorama.js").Frame} frame */
  add(frame) {
    // What is told of all rows has no id.
    if (frame.id === undefined) return;
    this.list.prepend(eventLine(frame));
    while (this.list.children.length > MOST) this.list.lastChild?.remove();
  }
}

/** @param {import("./diorama.js").Frame} frame */
function remark({ left, entered, covered }) {
  if (left) return "ceased to match";
  if (entered) return "began to match";
  if (covered === undefined) return "";
  return covered ? "the source was read, every difference was told" : "the source was read, too much differed to be told";
}

/** An event, with what it carries behind a click. @param {import("./diorama.js").Frame} frame */
export function eventLine(frame) {
  const kind = { RecordInserted: "good", RecordRemoved: "bad", WriteFailed: "bad", RecordChanged: "busy" }[frame.type] ?? "soft";
  const cells = frame.changed?.filter((name) => frame.record && name in frame.record).map((name) => `${name} = ${cell(frame.record?.[name])}`);
  const about = frame.error?.detail ?? cells?.join(", ") ?? remark(frame);
  return h("li", null,
    h("details", null,
      h("summary", null,
        h("span", { class: "seq soft" }, String(frame.seq ?? "")), " ",
        h("time", { class: "soft" }, clock(frame.at)), " ",
        badge(frame.type, /** @type {any} */ (kind)), " ",
        frame.id && h("strong", null, frame.id), " ",
        h("span", { class: "about" }, about), " ",
        h("span", { class: "soft" }, frame.origin ?? "")),
      h("pre", { tabIndex: 0 }, JSON.stringify(frame, null, 2))));
}

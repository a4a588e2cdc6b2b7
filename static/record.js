/** One row: its fields, what becomes of changes, and its history. */

import { cell, visible } from "./cells.js";
import { insert, Problem } from "./diorama.js";
import { badge, button, clock, h, link, panel, since, table, trouble } from "./dom.js";
import { Field } from "./field.js";
import { difference, own, pretty, same } from "./json.js";
import { placeOfRow } from "./query.js";
import { Related } from "./related.js";
import { rowAt } from "./row.js";
import { at, isUnknown, may, options, read, segment, send } from "./session.js";
import { signIn } from "./sign-in.js";

/** @typedef {import("./diorama.js").Row} Row */
/** @typedef {import("./query.js").Column} Column */

/** Events that the history shows. */
const MOST = 200;

/** @type {import("./explorer.js").Page} */
export async function record(host, { parts: [name, word], query }, failed, rights) {
  const path = `/${segment(name)}`;
  const isNew = word === "_new";
  const id = word === "_row" ? query.get("id") ?? "" : word;
  const schema = await read(`${path}/_schema`);
  const row = rowAt(path, schema.id, id);
  const { record, etag } = isNew ? {} : await row.get();
  const editor = new Editor(schema, name, isNew ? undefined : id, row, rights);
  host.replaceChildren(
    h("p", null, link(`← ${name}`, `#${path}`)), h("h1", null, isNew ? `New row of ${name}` : visible(id)), editor.element);
  editor.begin(record ?? {}, etag);
  if (isNew) return {};

  host.append(panel("Operations", editor.operations.element));
  editor.operations.find();
  const related = new Related(name, id, schema);
  host.append(related.element);
  related.look();
  if (!may(rights, "events", name)) return {};

  const history = new History();
  host.append(panel("History", history.element));
  const events = row.subscribe({
    since: "earliest",
    onState: ({ status, error }) => status === "failed" && (isUnknown(error) || error.close) && failed(error),
    onFrame(frame) {
      history.add(frame);
      if (frame.type === "WriteCommitted" || frame.type === "WriteFailed") editor.operations.find();
      if (frame.record || frame.type === "RecordRemoved" || frame.type === "reset") editor.look();
      if (frame.record) related.look();
    },
  });
  return { end: () => events.close() };
}

/** The form. It is filled with one version of the row, and saves what somebody changed in it only if that version is the newest. */
class Editor {
  /**
   * @param {any} schema @param {string} name @param {string | undefined} id @param {ReturnType<typeof rowAt>} row
   * @param {import("./session.js").Rights} rights
   */
  constructor(schema, name, id, row, rights) {
    this.name = name;
    this.path = `/${segment(name)}`;
    this.id = id;
    this.row = row;
    this.columns = /** @type {Column[]} */ (schema.columns);
    this.idColumn = schema.id;
    this.operations = new Operations(this.path, id ?? "", rights);
    this.news = h("div", { "aria-live": "polite" });
    this.base = /** @type {Row} */ ({});
    this.etag = /** @type {string | undefined} */ (undefined);
    this.fields = /** @type {Map<string, Field>} */ (new Map());
    this.place = h("div", { class: "fields" });
    /** Answers are taken in the order in which they were asked for. */
    this.turn = 0;
    this.saving = false;
    this.again = false;
    /** Whether a newer version waits for somebody to leave a field. */
    this.behind = false;
    const refused = schema.capabilities.refused;
    const action = this.isNew ? "insert" : "update";
    const canSave = !refused.includes(action);
    const columns = own(rights.resources, name)?.columns[action];
    /** Whether somebody may write a column. @type {(column: string) => boolean} */
    this.canWrite = (column) => canSave && (columns === undefined || columns.includes(column));
    const canDelete = !this.isNew && !refused.includes("delete");
    const onsubmit = (/** @type {Event} */ event) => {
      event.preventDefault();
      this.#save();
    };
    this.form = h("form", { class: "panel", onsubmit, onfocusout: () => this.behind && setTimeout(() => this.look()), onkeydown: saveKey },
      this.place,
      h("p", { class: "actions" },
        canSave && button(this.isNew ? "Add" : "Save", () => {}, { type: "submit", class: "primary" }),
        canDelete && button("Delete", () => this.#remove(), { class: "danger" }),
        !canSave && h("span", { class: "soft" }, may(rights, action, name) ? "This resource cannot be changed." : "You may not change this row.")));
    this.element = h("div", null, this.form, this.news);
  }

  get isNew() {
    return this.id === undefined;
  }

  get #changed() {
    return [...this.fields.values()].some((field) => field.changed);
  }

  /** What is in the controls. */
  get #states() {
    return new Map([...this.fields].map(([name, field]) => [name, field.state]));
  }

  /** Fills the form with a version, whatever is in it. @param {Row} row @param {string | undefined} etag */
  begin(row, etag) {
    this.#renew(row, etag, this.#states);
  }

  /**
   * Fills the form with a version, but for what was written since it was in these `states`.
   * @param {Row} row @param {string | undefined} etag @param {Map<string, string>} states
   */
  #renew(row, etag, states) {
    this.base = row;
    this.etag = etag;
    const columns = this.#all(row);
    for (const [name, field] of this.fields) {
      if (columns.some((column) => column.name === name) || field.changed) continue;
      this.fields.delete(name);
      field.element.remove();
    }
    for (const column of columns) {
      const field = this.fields.get(column.name);
      const value = own(row, column.name);
      if (field) {
        field.renew(value, states.get(column.name) ?? field.state);
        continue;
      }
      const added = new Field(column, value, this.isNew ? false : column.name === this.idColumn || !this.canWrite(column.name));
      this.fields.set(column.name, added);
      this.place.append(added.element);
    }
  }

  /** Columns of the schema, and what else the row has. @param {Row} row @returns {Column[]} */
  #all(row) {
    const names = new Set(this.columns.map(({ name }) => name));
    const others = Object.keys(row).filter((name) => !names.has(name));
    const all = [...this.columns, ...others.map((name) => ({ name, type: "json", flags: [] }))];
    return this.isNew ? all.filter(({ name }) => name === this.idColumn || this.canWrite(name)) : all;
  }

  /** What somebody changed in the form, by column; nothing if a field does not say a value. */
  #changes() {
    const changes = /** @type {Row} */ (Object.create(null));
    let failed = /** @type {Field | undefined} */ (undefined);
    for (const [name, field] of this.fields) {
      field.fail("");
      if (!field.changed) continue;
      try {
        const [before, value] = [own(this.base, name), field.read()];
        if (!this.isNew && same(before, value)) continue;
        changes[name] = this.isNew ? value : difference(before, value);
      } catch (error) {
        const { message } = /** @type {Error} */ (error);
        const isNull = error instanceof RangeError;
        field.fail(isNull ? `A change cannot make the member ${JSON.stringify(message)} null: leave it out, or write another value.` : message);
        failed ??= field;
      }
    }
    failed?.control.focus();
    return failed ? undefined : changes;
  }

  async #save() {
    if (this.saving) {
      // What was written meanwhile is saved on top of it.
      this.again = true;
      return;
    }
    const changes = this.#changes();
    if (!changes) return this.news.replaceChildren(h("p", { class: "trouble", role: "alert" }, "Nothing was saved: a field is wrong."));
    if (!Object.keys(changes).length) return this.news.replaceChildren(h("p", { class: "soft" }, "Nothing has changed."));
    const states = this.#states;
    this.saving = true;
    // What was asked for before is older than what comes of this.
    this.turn += 1;
    await this.#try(async () => {
      if (this.isNew) {
        const { record } = await insert(at(this.path), changes, options());
        location.hash = placeOfRow(this.name, String(own(record ?? {}, this.idColumn) ?? ""));
        return;
      }
      await this.row.patch(changes, this.etag);
      this.news.replaceChildren(h("p", { class: "soft" }, "Accepted."));
      const newest = await this.row.get();
      this.#renew(newest.record ?? {}, newest.etag, states);
      this.operations.find();
    });
    this.saving = false;
    const { again, behind } = this;
    this.again = false;
    if (again && this.#changed) await this.#save();
    else if (behind) await this.look();
  }

  #remove() {
    const sure = button("Delete this row", () => this.#try(async () => {
      await this.row.remove(this.etag);
      location.hash = `#${this.path}`;
    }), { class: "danger" });
    this.news.replaceChildren(h("p", { class: "actions" }, sure, button("Keep it", () => this.news.replaceChildren())));
    sure.focus();
  }

  /** @param {() => Promise<unknown>} act @returns {Promise<void>} */
  async #try(act) {
    try {
      await act();
    } catch (error) {
      try {
        // What was written stays in the form until the user is known again.
        if (isUnknown(error)) return await signIn(/** @type {Problem} */ (error)).then(() => this.#try(act));
        const conflict = error instanceof Problem && /** @type {any} */ (error).status === 412;
        if (conflict) await this.#conflict();
        else this.#refused(error);
      } catch (another) {
        this.#refused(another);
      }
    }
  }

  /** Says what was refused, beside its fields where it is about some. @param {any} error */
  #refused(error) {
    const others = Object.entries(error?.errors ?? {}).filter(([name, text]) => {
      const field = this.fields.get(name);
      field?.fail(String(text));
      return !field;
    });
    this.news.replaceChildren(trouble(error), h("ul", null, others.map(([name, text]) => h("li", null, h("strong", null, name), ` ${text}`))));
  }

  /** Somebody was faster: both versions, and a choice. */
  async #conflict() {
    const { record: theirs = {}, etag } = await this.row.get();
    const mine = this.#changes() ?? {};
    const names = [...this.fields.keys()].filter((name) => name in mine || cell(own(theirs, name)) !== cell(own(this.base, name)));
    const values = (/** @type {string} */ name) =>
      [own(this.base, name), own(theirs, name), name in mine ? this.fields.get(name)?.read() : own(theirs, name)];
    const line = (/** @type {string} */ name) =>
      h("tr", null, h("th", { scope: "row" }, name),
        values(name).map((value) => h("td", { class: value === null || value === undefined ? "null" : undefined }, cell(value))));
    const keep = () => {
      const untouched = new Map([...this.fields].map(([name, field]) => [name, field.changed ? "" : field.state]));
      this.#renew(theirs, etag, untouched);
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

  /** Whether somebody writes, or is about to. */
  get #isBusy() {
    const active = document.activeElement;
    return this.#changed || (this.form.contains(active) && active?.tagName !== "BUTTON");
  }

  /** The row may have changed: the form shows it, unless somebody is in one of its fields. */
  async look() {
    this.behind = this.saving;
    if (this.saving) return;
    this.turn += 1;
    const mine = this.turn;
    const found = await this.row.get().catch((error) => error);
    // A later question, or a save, has a newer answer.
    if (mine !== this.turn) return;
    if (found instanceof Problem && /** @type {any} */ (found).status === 404) {
      this.news.replaceChildren(h("p", { class: "trouble", role: "alert" }, "This row is deleted."));
      return;
    }
    if (!found.record || found.etag === this.etag) return;
    this.behind = this.#isBusy;
    if (this.behind) return;
    const before = this.base;
    this.begin(found.record, found.etag);
    for (const [name, field] of this.fields) {
      field.control.classList.toggle("flash", cell(own(before, name)) !== cell(own(found.record, name)));
    }
  }
}

/** In a control of several lines Enter begins a line; with Control it saves. @param {KeyboardEvent} event */
function saveKey(event) {
  const form = /** @type {any} */ (event.currentTarget);
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !event.isComposing) form.requestSubmit();
}

/** The writes of a row that have not just worked, and the newest one. */
class Operations {
  /** @param {string} path @param {string} id @param {import("./session.js").Rights} rights */
  constructor(path, id, rights) {
    this.rights = rights;
    this.query = `/operations?dio=${path.slice(1)}&record=${segment(id)}&limit=10`;
    this.element = h("div", { "aria-live": "polite" });
    this.turn = 0;
  }

  async find() {
    this.turn += 1;
    const mine = this.turn;
    const found = await read(this.query).then(
      (all) => (all.length ? operationTable(all, this.rights, () => this.find()) : h("p", { class: "soft" }, "No writes are remembered.")), trouble);
    if (mine === this.turn) this.element.replaceChildren(found);
  }
}

const KINDS = /** @type {Record<string, "good" | "bad" | "soft" | "busy">} */ ({
  applied: "good", failed: "bad", parked: "bad", discarded: "soft", queued: "busy", running: "busy", unknown: "busy",
});
/** What states mean to people. */
const WORDS = /** @type {Record<string, string>} */ ({ queued: "pending", running: "pending", applied: "confirmed" });

/**
 * Writes, with what can be done about them.
 * @param {any[]} all @param {import("./session.js").Rights} rights @param {() => unknown} again called when something was done
 * @param {boolean} [ofAll] whether they are of several resources
 */
export function operationTable(all, rights, again, ofAll = false) {
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
      ofAll && h("td", null, link(op.dio, `#/${segment(op.dio)}`)),
      h("td", null, typeof op.record === "string" ? link(visible(op.record), placeOfRow(op.dio, op.record)) : h("span", { class: "soft" }, "no single one")),
      h("td", { title: op.created }, since(op.created)),
      h("td", { class: "number" }, String(op.attempts)),
      h("td", null,
        op.error && h("span", { class: "why" }, op.error.detail ?? cell(op.error)),
        op.state === "parked" && may(rights, "operations", op.dio) && h("span", { class: "actions" },
          act("Retry", "POST", `/operations/${op.id}/retry`), act("Discard", "DELETE", `/operations/${op.id}`))));
  return table("Writes", ["State", "Write", ofAll ? "Resource" : [], "Row", "Accepted", "#Attempts", "Remarks"].flat(), all.map(line));
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
        frame.id !== undefined && h("strong", null, visible(frame.id)), " ",
        h("span", { class: "about" }, about), " ",
        h("span", { class: "soft" }, frame.origin ?? "")),
      h("pre", { tabIndex: 0 }, pretty(frame))));
}

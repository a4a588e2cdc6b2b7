/** One field of the form of a row. What is in it belongs to whoever writes there; it knows what it showed at first. */

import { canBeEmpty, isLong, kindOf, shown, typed } from "./cells.js";
import { h, select } from "./dom.js";
import { write } from "./json.js";

/** @typedef {import("./query.js").Column} Column */

/** What a control says of what is not there. */
const ABSENT = { null: "null", undefined: "not set" };
let count = 0;

export class Field {
  /** @param {Column} column @param {unknown} value @param {boolean} readOnly */
  constructor(column, value, readOnly) {
    count += 1;
    this.column = column;
    this.readOnly = readOnly;
    this.value = value;
    this.kind = kindOf(column, value);
    /** What the control showed at first. */
    this.shown = "";
    this.emptied = false;
    this.id = `field-${count}`;
    this.control = /** @type {any} */ (undefined);
    this.place = h("div", null);
    this.why = h("p", { class: "why bad", id: `${this.id}-why`, role: "alert", hidden: true });
    /** What was in the control when the box for null was chosen. */
    this.aside = "";
    this.box = h("input", { type: "checkbox", "aria-describedby": `${this.id}-name`, onchange: () => this.#toggle() });
    this.hasBox = false;
    this.boxPlace = h("span", null);
    this.element = h("div", { class: "field" },
      h("span", null, h("label", { for: this.id, id: `${this.id}-name` }, column.name), " ", this.boxPlace), this.place, this.why);
    this.show(value);
  }

  /** Shows a value, whatever was in the control. @param {unknown} value */
  show(value) {
    this.value = value;
    this.emptied = false;
    this.kind = kindOf(this.column, value);
    let text = shown(this.kind, value);
    this.#make(text, this.kind === "boolean" ? "select" : this.kind === "json" || isLong(text) ? "textarea" : "input");
    if (this.kind === "text" && this.control.value !== text.replace(/\r\n?/g, "\n")) {
      // No control holds this text. As JSON it can be written.
      this.kind = "json";
      text = write(value);
      this.#make(text, "textarea");
    }
    this.shown = this.control.value;
    this.hasBox = !this.readOnly && this.kind === "text" && canBeEmpty(this.column, value);
    this.boxPlace.replaceChildren(...(this.hasBox ? [h("label", { class: "nullable" }, this.box, " null")] : []));
    this.box.checked = value === null;
    this.#say();
    this.fail("");
  }

  /**
   * Shows a newer value of the row, unless somebody has written here since it was in the `state`; then what is written stands over the newer
   * value from now on.
   * @param {unknown} value @param {string} state
   */
  renew(value, state) {
    if (this.state === state) return this.show(value);
    this.value = value;
    this.shown = shown(this.kind, value).replace(/\r\n?/g, "\n");
    this.#say();
  }

  /** What is in the control, to be compared. */
  get state() {
    return `${this.#isNull} ${this.emptied} ${this.control.value}`;
  }

  get #isNull() {
    return this.hasBox && this.box.checked;
  }

  /** Whether somebody has changed what the control showed at first. */
  get changed() {
    if (this.readOnly) return false;
    if (this.hasBox && this.box.checked !== (this.value === null)) return true;
    if (this.emptied && this.value === undefined) return true;
    return !this.#isNull && this.control.value !== this.shown;
  }

  /** The value that it says; a SyntaxError if it says none. */
  read() {
    if (this.#isNull) return null;
    return typed(this.kind, this.control.value, this.value);
  }

  /** Says what is wrong with it, or nothing. @param {string} text */
  fail(text) {
    this.why.textContent = text;
    this.why.hidden = !text;
    for (const [name, value] of [["aria-invalid", "true"], ["aria-describedby", this.why.id]]) {
      if (text) this.control.setAttribute(name, value);
      else this.control.removeAttribute(name);
    }
  }

  /** @param {string} text @param {"select" | "textarea" | "input"} tag */
  #make(text, tag) {
    const { name, type } = this.column;
    const more = { id: this.id, name, readOnly: this.readOnly, autocomplete: "off", spellcheck: false };
    if (tag === "select") {
      const known = ["true", "false", "null"];
      const other = known.includes(text) ? [] : [text];
      const all = [...other, ...known].map((each) => /** @type {[string, string]} */ ([each, each || ABSENT.undefined]));
      this.#replace(select(all, text, { ...more, disabled: this.readOnly, onchange: () => this.#written() }));
      return;
    }
    if (this.control?.tagName.toLowerCase() !== tag) {
      const inputMode = ["integer", "number", "decimal"].includes(type) ? "decimal" : undefined;
      const control = h(tag, { ...more, inputMode, oninput: () => this.#written() });
      if (tag === "input" && this.kind === "text") this.#mayGrow(control);
      this.#replace(control);
    }
    if (tag === "textarea") this.control.rows = Math.min(12, Math.max(3, text.split(/\r\n?|\n/).length));
    if (this.control.value !== text) this.control.value = text;
  }

  /** @param {any} control */
  #replace(control) {
    this.control = control;
    this.place.replaceChildren(control);
    this.element.classList.toggle("broad", control.tagName === "TEXTAREA");
  }

  /** A control of one line drops the ends of lines that are pasted: one of several lines takes its place. @param {any} control */
  #mayGrow(control) {
    const grow = (/** @type {Event} */ event, /** @type {string} */ text) => {
      event.preventDefault();
      const { value, selectionStart, selectionEnd } = control;
      this.#make(value.slice(0, selectionStart) + text + value.slice(selectionEnd), "textarea");
      this.control.focus();
      const at = selectionStart + text.replace(/\r\n?/g, "\n").length;
      this.control.setSelectionRange(at, at);
      this.#written();
    };
    const taken = (/** @type {Event} */ event, /** @type {DataTransfer | null} */ data) => {
      const text = data?.getData("text/plain") ?? "";
      if (!this.readOnly && /[\r\n]/.test(text)) grow(event, text);
    };
    control.addEventListener("paste", (/** @type {ClipboardEvent} */ event) => taken(event, event.clipboardData));
    control.addEventListener("drop", (/** @type {DragEvent} */ event) => taken(event, event.dataTransfer));
    control.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      if (event.key === "Enter" && event.shiftKey && !this.readOnly) grow(event, "\n");
    });
  }

  #written() {
    this.fail("");
    this.box.checked = this.control.value === "" && this.value === null;
    this.#say();
  }

  /** The box for null was clicked. */
  #toggle() {
    this.fail("");
    this.emptied = !this.box.checked;
    if (this.box.checked) this.aside = this.control.value;
    this.control.value = this.box.checked ? "" : this.aside;
    this.#say();
  }

  /** Says that nothing is there, and which nothing. */
  #say() {
    if (this.kind === "boolean") return;
    const isNull = this.hasBox ? this.box.checked : this.value === null;
    const isAbsent = this.value === undefined && !this.emptied;
    this.control.placeholder = isNull ? ABSENT.null : isAbsent ? ABSENT.undefined : "";
  }
}

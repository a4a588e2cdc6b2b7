/** Cells as people edit them: how a value stands in a control, and which value a control then says. Pure. */

import { isObject, numeral, parse, write } from "./json.js";

/** @typedef {import("./query.js").Column} Column */

/** Texts of more characters get a control of several lines. */
const SHORT = 60;

/** The text of a cell. @param {unknown} value @returns {string} */
export function cell(value) {
  if (value === null || value === undefined) return "";
  return typeof value === "object" ? write(value) : String(value);
}

/** A cell for people who look at one row: what looks like nothing is in quotes. @param {string} text */
export const visible = (text) => (/^[\p{Z}\p{C}\s]*$/u.test(text) ? JSON.stringify(text).replace(/[^ -~]/gu, escaped) : text);

const escaped = (/** @type {string} */ char) => char.split("").map((unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`).join("");

/**
 * How a cell is edited: as JSON, as a choice, as a number, or as text. That is a matter of its column, and of what is in it now.
 * @param {Column} column @param {unknown} value @returns {"json" | "boolean" | "number" | "text"}
 */
export function kindOf({ type }, value) {
  if (type === "json" || isObject(value) || Array.isArray(value)) return "json";
  if (type === "boolean") return "boolean";
  return type === "integer" || type === "number" ? "number" : "text";
}

/** Whether an empty text of the column is a value, which is not null. @param {Column} column @param {unknown} value */
export const canBeEmpty = ({ type }, value) => type === "string" || type === "bytes" || value === "";

/** What a control shows of a value. @param {string} kind @param {unknown} value */
export function shown(kind, value) {
  if (kind === "json") return value === undefined ? "" : write(value);
  if (kind === "boolean" && value === null) return "null";
  return cell(value);
}

/** Whether a text needs a control with several lines: others drop the ends of lines. @param {string} text */
export const isLong = (text) => text.length > SHORT || /[\r\n]/.test(text);

/** What a control with several lines makes of a text: it has one end of a line only. @param {string} text */
const asShown = (text) => text.replace(/\r\n?/g, "\n");

/**
 * What was written over `original` in a control with several lines. Lines that were there end as they did, others as the line in
 * whose place they are, or as most lines of the original do.
 * @param {string} original @param {string} edited
 */
export function restored(original, edited) {
  if (!original.includes("\r")) return edited;
  const before = asShown(original);
  if (edited === before) return original;
  let head = 0;
  const most = Math.min(before.length, edited.length);
  while (head < most && before[head] === edited[head]) head += 1;
  let tail = 0;
  while (tail < most - head && before[before.length - 1 - tail] === edited[edited.length - 1 - tail]) tail += 1;
  const [first, last] = [place(original, head), place(original, before.length - tail)];
  const usual = lineEnd(original);
  const changed = edited.slice(head, edited.length - tail);
  const made = original.slice(0, first) + endedAs(original.slice(first, last), changed, usual) + original.slice(last);
  // Where several ends are mixed, two of them side by side may be read as one.
  return asShown(made) === edited ? made : edited.replaceAll("\n", usual);
}

/** The lines of `edited` with the ends that they have in `original`. @param {string} original @param {string} edited @param {string} usual */
function endedAs(original, edited, usual) {
  const before = [...original.matchAll(/([^\r\n]*)(\r\n|\n|\r|$)/g)].map(([, line, end]) => ({ line, end }));
  let at = 0;
  const ends = edited.split("\n").map((line) => {
    const found = before.findIndex((each, index) => index >= at && each.line === line);
    const { end = "" } = before[found < 0 ? at : found] ?? {};
    if (found >= 0) at = found + 1;
    return line + (end || usual);
  });
  // What follows the last end of a line has none.
  const last = edited.split("\n").at(-1) ?? "";
  return ends.slice(0, -1).join("") + last;
}

/** Where the character `at` of the shown text is in the original. @param {string} original @param {number} at */
function place(original, at) {
  let from = 0;
  for (let seen = 0; seen < at; seen += 1) from += original.startsWith("\r\n", from) ? 2 : 1;
  return from;
}

/** The most frequent end of a line. @param {string} text */
function lineEnd(text) {
  const count = (/** @type {RegExp} */ pattern) => text.match(pattern)?.length ?? 0;
  const all = /** @type {[string, number][]} */ ([["\r\n", count(/\r\n/g)], ["\n", count(/(?<!\r)\n/g)], ["\r", count(/\r(?!\n)/g)]]);
  return all.reduce((most, each) => (each[1] > most[1] ? each : most))[0];
}

/**
 * The value that a text in a control says. What cannot be one is a SyntaxError, whose message people read.
 * @param {string} kind @param {string} text @param {unknown} before what it was written over
 */
export function typed(kind, text, before) {
  if (kind === "json") return readJson(text);
  if (kind === "boolean") return text === "null" ? null : text === "true";
  if (kind === "number") return text.trim() === "" ? null : (numeral(text.trim()) ?? text);
  return typeof before === "string" ? restored(before, text) : text;
}

/** @param {string} text */
function readJson(text) {
  if (text.trim() === "") throw new SyntaxError("This is no JSON: it is empty. Write null for no value.");
  try {
    return parse(text, { strict: true });
  } catch (error) {
    throw new SyntaxError(`This is no JSON: ${/** @type {Error} */ (error).message}.`);
  }
}

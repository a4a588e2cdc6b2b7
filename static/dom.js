/** Elements, and how values are written. */

/** @typedef {import("./diorama.js").Row} Row */

/**
 * An element: properties by name, attributes where the name has a dash or is `role` or `class`, listeners where it begins with `on`.
 * @param {string} tag @param {Row | null} [properties] @param {...any} children
 * @returns {any} The element of that tag.
 */
export function h(tag, properties, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name.includes("-") || ATTRIBUTES.has(name)) element.setAttribute(name, value);
    else Object.assign(element, { [name]: value });
  }
  element.append(...children.flat(Infinity).filter((child) => child !== undefined && child !== null && child !== false));
  return element;
}

const ATTRIBUTES = new Set(["class", "for", "list", "role", "scope"]);

/** @param {string} text @param {string} href @param {Row} [more] */
export const link = (text, href, more) => h("a", { href, ...more }, text);

/** @param {string} text @param {(event: MouseEvent) => unknown} onclick @param {Row} [more] */
export const button = (text, onclick, more) => h("button", { type: "button", onclick, ...more }, text);

/** A control with its name. @param {string} name @param {HTMLElement} control */
export const field = (name, control) => h("label", { class: "field" }, h("span", null, name), control);

/** A choice. @param {[string, string][]} options value and text @param {string} value @param {Row} [more] */
export const select = (options, value, more) =>
  h("select", more, options.map(([each, text]) => h("option", { value: each, selected: each === value }, text)));

/** A word about a state. @param {string} word @param {"good" | "bad" | "soft" | "busy"} kind */
export const badge = (word, kind) => h("span", { class: `badge ${kind}` }, word);

/** What went wrong, as people are told; what the network does is a TypeError. @param {any} error */
export const trouble = (error) =>
  h("p", { class: "trouble", role: "alert" },
    h("strong", null, error instanceof TypeError ? "The server cannot be reached." : `${MEANINGS[error?.status] ?? ""}${error?.message ?? String(error)}`),
    error?.hint && ` ${error.hint}`);

/** What refusals mean for the user. */
const MEANINGS = /** @type {Record<number, string>} */ ({ 401: "You are not signed in: ", 403: "You may not do this: " });

/** What is being tried again, with what the server says about it. @param {any} error @param {string[]} reasons */
export const failure = (error, reasons) =>
  h("div", null, trouble(error),
    reasons.length > 0 && h("ul", null, reasons.map((reason) => h("li", null, reason))),
    h("p", { class: "soft" }, "It is being tried again."));

/** @param {string} title @param {...any} children */
export const panel = (title, ...children) => h("section", { class: "panel" }, h("h2", null, title), ...children);

/**
 * A table that can be scrolled sideways.
 * @param {string} about what it shows, for those who do not see it @param {string[]} columns those of numbers begin with "#"
 * @param {HTMLElement[]} rows
 */
export const table = (about, columns, rows) =>
  h("div", { class: "scroll", role: "region", "aria-label": about, tabIndex: 0 },
    h("table", { class: "plain" },
      h("thead", null, h("tr", null, columns.map((name) => h("th", { scope: "col", class: name.startsWith("#") ? "number" : undefined }, name.replace("#", ""))))),
      h("tbody", null, rows)));

/** @param {number} value */
export const number = (value) => value.toLocaleString("en").replaceAll(",", "\u202f");

/** @param {number | null | undefined} seconds */
export function ago(seconds) {
  if (seconds === null || seconds === undefined) return "never";
  if (seconds < 1) return "just now";
  const steps = /** @type {[number, string][]} */ ([[86_400, "d"], [3_600, "h"], [60, "min"], [1, "s"]]);
  const [size, unit] = steps.find(([size]) => seconds >= size) ?? [1, "s"];
  return `${Math.floor(seconds / size)} ${unit} ago`;
}

/** @param {string | undefined} moment */
export const clock = (moment) => (moment ? new Date(moment).toLocaleTimeString("en-GB") : "");

/** @param {string | undefined} moment */
export const since = (moment) => (moment ? ago((Date.now() - Date.parse(moment)) / 1000) : "");

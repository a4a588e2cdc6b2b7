/** Queries as people make them, and as the API takes them. Pure. */

/** @typedef {{ name: string, type: string, flags: string[] }} Column */

/** What parameters of lists and of events are called. */
const RESERVED = new Set((
  "order select limit offset after q or and not not.or not.and explain range sort filter all " +
  "since snapshot records ids ops heartbeat wait live").split(" "));

/** What people choose from; the others of the API are written by hand. @type {[string, string][]} */
const OPERATORS = [["eq", "="], ["neq", "≠"], ["gte", "≥"], ["gt", ">"], ["lte", "≤"], ["lt", "<"]];
const NULLS = /** @type {[string, string][]} */ ([["is.null", "is null"], ["is.not_null", "is set"]]);

/** The operators that fit a column, with their signs. @param {Column} column @returns {[string, string][]} */
export function operators({ type }) {
  if (type === "boolean") return [["eq", "="], ...NULLS];
  if (["integer", "number", "decimal", "date", "datetime"].includes(type)) return [...OPERATORS, ...NULLS];
  return [["ilike", "contains"], ...OPERATORS, ...NULLS];
}

/** A filter as the page has it: an operator, and what it is compared with. @typedef {{ operator: string, value: string }} Filter */

/** @param {string} text what stands in the URL @param {Column} column @returns {Filter} */
export function parseFilter(text, column) {
  const known = operators(column);
  if (known.some(([operator]) => operator === text)) return { operator: text, value: "" };
  const [, operator, value] = text.match(/^([a-z]+)\.([^]*)$/) ?? [];
  if (operator === "ilike" && /^\*[^*]*\*$/.test(value)) return { operator, value: value.slice(1, -1) };
  if (operator !== "ilike" && known.some(([each]) => each === operator)) return { operator, value };
  return { operator: operator ? "" : "eq", value: text };
}

/** What stands in the URL; nothing, if there is nothing to compare with. @param {Filter} filter */
export function formatFilter({ operator, value }) {
  if (operator.includes(".")) return operator;
  if (value === "") return "";
  if (operator === "") return value;
  return operator === "ilike" ? `ilike.*${value}*` : `${operator}.${value}`;
}

/** @param {string} name */
const inQuotes = (name) => `"${name.replace(/["\\]/g, "\\$&")}"`;

/** The parameter that filters a column. @param {string} name */
export const parameter = (name) => (RESERVED.has(name) || /^(?:["_]|$)/.test(name) ? inQuotes(name) : name);

/** A column within `order` and `select`. @param {string} name */
export const quoted = (name) => (/^[\w-]+$/.test(name) ? name : inQuotes(name));

/** What `select` has between its commas. @param {string} select */
const itemsOf = (select) => (select.match(/(?:"(?:[^"\\]|\\[^])*"|[^",])+/g) ?? []).map((item) => item.trim());

/** The names within `select`; none that is renamed or a path, which are no columns. @param {string} select */
export const namesOf = (select) =>
  itemsOf(select).map((item) => (/^".*"$/s.test(item) ? item.slice(1, -1).replace(/\\([^])/g, "$1") : item));

/** Whether `select` has every column in the rows. @param {string} select */
export const isAll = (select) => select === "" || itemsOf(select).includes("*");

/** What a query has to select so that `id` is in the rows, which lead nowhere without. @param {string} select @param {string} id */
export const withId = (select, id) => (isAll(select) || namesOf(select).includes(id) ? select : `${quoted(id)},${select}`);

/** What a click on a header makes of the order: up, down, none. @param {string} order @param {string} name */
export function nextOrder(order, name) {
  const own = quoted(name);
  if (order === own || order === `${own}.asc`) return `${own}.desc`;
  return order === `${own}.desc` ? "" : own;
}

/** How a column is sorted. @param {string} order @param {string} name @returns {"ascending" | "descending" | "none"} */
export function direction(order, name) {
  const own = quoted(name);
  if (order === own || order.startsWith(`${own},`) || order.startsWith(`${own}.asc`)) return "ascending";
  return order.startsWith(`${own}.desc`) ? "descending" : "none";
}

/** A query for people to read: what needs no code stays as it is. @param {URLSearchParams} query */
export const readable = (query) =>
  [...query].map(([name, value]) => `${readablePart(name)}=${readablePart(value)}`).join("&");

const readablePart = (/** @type {string} */ text) =>
  encodeURIComponent(text).replace(/%(?:2C|22|28|29|2A|3A|2F)/g, (code) => (code === "%22" ? '"' : decodeURIComponent(code)));

/** @param {string} url @param {boolean} guarded */
export const asCurl = (url, guarded) =>
  `curl '${url.replaceAll("'", "%27")}'${guarded ? ' -H "Authorization: Bearer $TOKEN"' : ""}`;

/** @param {string} url @param {boolean} guarded */
export function asFetch(url, guarded) {
  const headers = guarded ? ", { headers: { Authorization: `Bearer ${token}` } }" : "";
  return `await (await fetch(${JSON.stringify(url)}${headers})).json()`;
}

/** Ids that no path of the API can have: words of its own, and what browsers leave out of paths. @param {string} id */
export const isWord = (id) => ["", ".", "..", "events", "live"].includes(id) || id.startsWith("_");

/** The place of a row. @param {string} name of its resource @param {string} id */
export function placeOfRow(name, id) {
  const text = encodeURIComponent(id);
  return `#/${encodeURIComponent(name)}/${isWord(id) ? `_row?id=${text}` : text}`;
}

/** A place of the explorer: the path and the query of the API that it shows. @param {string} hash */
export function parsePlace(hash) {
  const [path, ...query] = hash.replace(/^#/, "").split("?");
  const parts = path.split("/").slice(1).map(decode);
  return { parts: parts[0] ? parts : [], query: new URLSearchParams(query.join("?")) };
}

function decode(/** @type {string} */ text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

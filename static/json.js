/**
 * JSON whose numbers stay as they are written: `9007199254740993` is not rounded, `1.50` is not shortened. Pure.
 *
 * `JSON.parse` gives the nearest number of 64 bits, which may be another one.
 */

/** A number, as its text. */
export class Numeral {
  /** @param {string} text */
  constructor(text) {
    this.text = text;
    Object.freeze(this);
  }

  toString() {
    return this.text;
  }

  /** The nearest number, to count with. */
  valueOf() {
    return Number(this.text);
  }
}

/** A number of JSON and nothing else. */
const NUMBER = /^-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?$/;
/** The same within a text. */
const TOKEN = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y;

/** The texts of objects and arrays that were read, in the order of their members and with their spaces. */
const sources = /** @type {WeakMap<object, string>} */ (new WeakMap());

/** A number, if `text` is one as JSON writes them. @param {string} text */
export const numeral = (text) => (NUMBER.test(text) ? new Numeral(text) : undefined);

/** @param {unknown} value @returns {value is Record<string, any>} */
export const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Numeral);

/** The member of that very name. @param {any} object @param {string} name */
export const own = (object, name) => (Object.hasOwn(object, name) ? object[name] : undefined);

/**
 * Reads a document. Objects have no prototype, so that every name of a member is only that.
 * @param {string} text @param {{ strict?: boolean }} [options] `strict` refuses an object that names a member twice; else the last one counts.
 * @returns {any}
 */
export function parse(text, { strict = false } = {}) {
  let at = 0;

  /** @param {string} wanted @returns {never} */
  function fail(wanted) {
    const found = at >= text.length ? "it ends" : `there is ${JSON.stringify(String.fromCodePoint(/** @type {number} */ (text.codePointAt(at))))}`;
    const before = text.slice(0, at).split("\n");
    const place = before.length > 1 ? `line ${before.length}, character ${before[before.length - 1].length + 1}` : `character ${at + 1}`;
    throw new SyntaxError(`at ${place} ${found} in place of ${wanted}`);
  }

  function skip() {
    for (; at < text.length; at += 1) {
      const code = text.charCodeAt(at);
      if (code !== 32 && code !== 10 && code !== 13 && code !== 9) return;
    }
  }

  /** @param {string} char */
  function take(char) {
    if (text[at] !== char) return false;
    at += 1;
    return true;
  }

  /** @param {string} wanted */
  function string(wanted) {
    const begin = at;
    if (!take('"')) fail(wanted);
    for (;;) {
      const end = text.indexOf('"', at);
      if (end < 0) {
        at = text.length;
        fail("the closing quote of a text");
      }
      let slashes = 0;
      while (text.charCodeAt(end - 1 - slashes) === 92) slashes += 1;
      at = end + 1;
      if (slashes % 2 === 0) break;
    }
    try {
      return /** @type {string} */ (JSON.parse(text.slice(begin, at)));
    } catch {
      at = begin;
      return fail("a text (in texts a line end is \\n, a tab \\t, a backslash \\\\)");
    }
  }

  /** @template T @param {T} value @param {number} begin */
  function kept(value, begin) {
    sources.set(/** @type {any} */ (value), text.slice(begin, at));
    return value;
  }

  function object() {
    const begin = at;
    const value = Object.create(null);
    at += 1;
    skip();
    if (take("}")) return kept(value, begin);
    for (;;) {
      skip();
      const start = at;
      const name = string("the name of a member in double quotes");
      if (strict && name in value) {
        at = start;
        fail("another name, for that one stands twice");
      }
      skip();
      if (!take(":")) fail("a colon");
      value[name] = any();
      skip();
      if (take("}")) return kept(value, begin);
      if (!take(",")) fail("a comma or }");
    }
  }

  function array() {
    const begin = at;
    const value = /** @type {any[]} */ ([]);
    at += 1;
    skip();
    if (take("]")) return kept(value, begin);
    for (;;) {
      value.push(any());
      skip();
      if (take("]")) return kept(value, begin);
      if (!take(",")) fail("a comma or ]");
    }
  }

  /** @returns {any} */
  function any() {
    skip();
    const char = text[at];
    if (char === '"') return string("a text");
    if (char === "{") return object();
    if (char === "[") return array();
    for (const [word, value] of WORDS) {
      if (text.startsWith(word, at)) {
        at += word.length;
        return value;
      }
    }
    TOKEN.lastIndex = at;
    const found = TOKEN.exec(text);
    if (!found) fail("a value (texts stand in double quotes)");
    at = TOKEN.lastIndex;
    return new Numeral(/** @type {RegExpExecArray} */ (found)[0]);
  }

  const value = any();
  skip();
  if (at < text.length) fail("the end");
  return value;
}

const WORDS = /** @type {[string, any][]} */ ([["true", true], ["false", false], ["null", null]]);

/** Writes a value as it was read, or as short as it can be. @param {any} value @returns {string} */
export function write(value) {
  if (value instanceof Numeral) return value.text;
  if (typeof value !== "object" || value === null) return JSON.stringify(value) ?? "null";
  const source = sources.get(value);
  if (source !== undefined) return source;
  if (Array.isArray(value)) return `[${value.map(write).join(",")}]`;
  return `{${members(value).map(([name, member]) => `${JSON.stringify(name)}:${write(member)}`).join(",")}}`;
}

/** Writes a value for people: a member a line. @param {any} value @param {string} [indent] @returns {string} */
export function pretty(value, indent = "") {
  const inner = `${indent}  `;
  const lines = (/** @type {string[]} */ all) => `\n${inner}${all.join(`,\n${inner}`)}\n${indent}`;
  if (Array.isArray(value)) return value.length ? `[${lines(value.map((each) => pretty(each, inner)))}]` : "[]";
  if (!isObject(value)) return write(value);
  const all = members(value).map(([name, member]) => `${JSON.stringify(name)}: ${pretty(member, inner)}`);
  return all.length ? `{${lines(all)}}` : "{}";
}

/** @param {Record<string, any>} object */
const members = (object) => Object.entries(object).filter(([, value]) => value !== undefined);

/** Whether two values are one, numbers by their texts. @param {any} a @param {any} b @returns {boolean} */
export function same(a, b) {
  if (a instanceof Numeral || b instanceof Numeral) return a instanceof Numeral && b instanceof Numeral && a.text === b.text;
  if (Array.isArray(a)) return Array.isArray(b) && a.length === b.length && a.every((each, at) => same(each, b[at]));
  if (!isObject(a) || !isObject(b)) return a === b;
  const names = Object.keys(a);
  return names.length === Object.keys(b).length && names.every((name) => Object.hasOwn(b, name) && same(a[name], b[name]));
}

/**
 * What a merge patch (RFC 7396) says of a value that was `before` and shall be `after`: members that are gone are null in it, those
 * that stay as they are do not stand in it.
 *
 * A patch cannot say that a member is null: that is a RangeError.
 * @param {any} before @param {any} after @returns {any}
 */
export function difference(before, after) {
  if (!isObject(after)) return after;
  const old = isObject(before) ? before : Object.create(null);
  const patch = Object.create(null);
  for (const [name, value] of Object.entries(after)) {
    if (Object.hasOwn(old, name) && same(old[name], value)) continue;
    if (value === null) throw new RangeError(name);
    patch[name] = difference(own(old, name), value);
  }
  for (const name of Object.keys(old)) {
    if (!Object.hasOwn(after, name)) patch[name] = null;
  }
  return patch;
}

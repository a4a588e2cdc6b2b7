/** One row of the API, by its path; or by a filter, where its id is a word of the paths or nothing that a path can end with. */

import { get, list, patch, Problem, remove, subscribe } from "./diorama.js";
import { write } from "./json.js";
import { isWord, parameter } from "./query.js";
import { at, options, segment, send } from "./session.js";
import { signIn } from "./sign-in.js";

/** @typedef {import("./diorama.js").Row} Row */
/** @typedef {{ record?: Row, etag?: string }} Version */

/**
 * @param {string} path of its resource @param {string} column of ids @param {string} id
 * @returns {{ get(): Promise<Version>, patch(changes: Row, etag?: string): Promise<unknown>, remove(etag?: string): Promise<unknown>,
 *   subscribe(about: Pick<Parameters<typeof subscribe>[2], "since" | "onFrame" | "onState">): ReturnType<typeof subscribe> }}
 */
export function rowAt(path, column, id) {
  if (isWord(id)) return byFilter(path, column, id);
  return {
    get: () => get(at(path), id, options()),
    patch: (changes, ifMatch) => patch(at(path), id, changes, { ...options(), ifMatch }),
    remove: (ifMatch) => remove(at(path), id, { ...options(), ifMatch }),
    subscribe: (about) => subscribe(`${at(path)}/${segment(id)}`, "", { ...options(), renew: signIn, ...about }),
  };
}

/** @param {string} path @param {string} column @param {string} id @returns {ReturnType<typeof rowAt>} */
function byFilter(path, column, id) {
  const filter = new URLSearchParams([[parameter(column), `eq.${id}`]]);
  const missing = () => new Problem({ detail: `there is no row ${JSON.stringify(id)}`, status: 404, code: "not-found" });

  async function find() {
    const { rows: [record] } = await list(at(path), filter, options());
    if (!record) throw missing();
    return { record, etag: write(record) };
  }

  /** A write by filter takes no version: the row is compared before. @param {string} method @param {string | undefined} etag @param {Row} [changes] */
  async function change(method, etag, changes) {
    const { etag: newest } = await find();
    if (etag && newest !== etag) throw new Problem({ detail: "somebody has changed the row", status: 412, code: "precondition-failed" });
    const headers = changes && { "Content-Type": "application/json" };
    const done = await send(method, `${path}?${filter}`, { body: changes && write(changes), headers });
    if (done.affected === 0) throw missing();
  }

  return {
    get: find,
    patch: (changes, etag) => change("PATCH", etag, changes),
    remove: (etag) => change("DELETE", etag),
    subscribe: (about) => subscribe(at(path), filter, { ...options(), renew: signIn, ...about }),
  };
}

/** The server that this page came from, and the token that it may want. */

import { list, Problem } from "./diorama.js";
import { parse, write } from "./json.js";

/** Where the gateway is: its address without a slash at the end. */
export const base = new URL("..", import.meta.url).href.replace(/\/$/, "");

const token = () => sessionStorage.getItem("diorama.token") ?? undefined;

/** What every request for rows needs: a token, and numbers as they are written. */
export const options = () => ({ token: token(), json: { parse, stringify: write } });

/** @returns {Record<string, string>} */
function bearer() {
  const known = token();
  return known ? { Authorization: `Bearer ${known}` } : {};
}

/** Whether there is a token. */
export const hasToken = () => Boolean(token());

/** Keeps a token while the tab is open, if the server knows it: else it throws what the server says. @param {string} given */
export async function keepToken(given) {
  // A header holds no others, and neither does a token.
  if (/[^!-~]/.test(given)) throw new Problem({ detail: "the token is not known", hint: "It has characters that no token has.", status: 401 });
  await list(at("/"), "", { token: given });
  sessionStorage.setItem("diorama.token", given);
}

/** The address of an API path. @param {string} path */
export const at = (path) => base + path;

/**
 * The document at a path, which has no numbers that are rounded.
 * @param {string} path
 * @returns {Promise<any>}
 */
export const read = async (path) => (await list(at(path), "", { token: token() })).rows;

/**
 * Sends what changes something that is no row.
 * @param {string} method @param {string} path @param {{ body?: string, headers?: Record<string, string> }} [more]
 */
export async function send(method, path, { body, headers } = {}) {
  // Whoever sends to a webhook proves that otherwise.
  const own = /^\/webhooks\/[^/]+$/.test(path) ? {} : bearer();
  const response = await fetch(at(path), { method, body, headers: { ...own, ...headers } });
  const said = await response.json().catch(() => undefined);
  if (!response.ok) throw new Problem({ detail: `the server answered ${response.status}`, ...said, status: response.status });
  return said;
}

/**
 * The text at a path, also that of an answer of one of the statuses `also`.
 * @param {string} path @param {number[]} [also]
 */
export async function text(path, also = []) {
  const response = await fetch(at(path), { headers: bearer() });
  if (response.ok || also.includes(response.status)) return response.text();
  const said = await response.json().catch(() => undefined);
  throw new Problem({ detail: `the server answered ${response.status}`, ...said, status: response.status });
}

/** Whether the server is not there, or not yet able: what may be over when it is tried again. @param {any} error */
export const isPassing = (error) =>
  error instanceof TypeError || (error instanceof Problem && [429, 502, 503, 504].includes(/** @type {any} */ (error).status));

/** @param {any} error */
export const isUnknown = (error) => error instanceof Problem && /** @type {any} */ (error).status === 401;

/** `/readyz` says how things are also when it says no. @returns {Promise<any>} */
export const readiness = () => read("/readyz").catch((problem) => (problem.dios ? problem : Promise.reject(problem)));

/** Why a resource cannot be read, as far as the server says. @param {string} name @returns {Promise<string[]>} */
export async function reasons(name) {
  const ready = await readiness().catch(() => undefined);
  const dio = ready && Object.hasOwn(ready.dios, name) ? ready.dios[name] : undefined;
  return dio && !dio.ready ? dio.reasons : [];
}

/** Writes into the path of a URL what is not meant as a part of it. @param {string} text */
export const segment = (text) => encodeURIComponent(text);

/**
 * Does something now and every so often, not while the tab is hidden; stops when told to.
 * @param {number} seconds @param {() => Promise<unknown>} work
 */
export function every(seconds, work) {
  let stopped = false;
  (async () => {
    while (!stopped) {
      if (!document.hidden) await work();
      await new Promise((done) => setTimeout(done, seconds * 1000));
    }
  })();
  return () => {
    stopped = true;
  };
}

/** The server that this page came from, who its user is there, and what that user may do. */

import { list, Problem } from "./diorama.js";
import { own, parse, write } from "./json.js";

/**
 * The answer of `/_access`. `columns` has the columns by action, for actions that are restricted to some.
 * @typedef {{ can: string[], columns: Record<string, string[]> }} ResourceRights
 * @typedef {{ name: string | null, role: string, credentials: boolean, session: boolean, everywhere: string[],
 *   resources: Record<string, ResourceRights> }} Rights
 */

/** Where the gateway is: its address without a slash at the end. */
export const base = new URL("..", import.meta.url).href.replace(/\/$/, "");

/** What every request for rows needs: numbers as they are written. The browser adds the session. */
export const options = () => ({ json: { parse, stringify: write } });

/** Header of requests without a body: without TLS a browser does not say which page sends the session. */
const OWN = { "X-Requested-With": "diorama" };

/** The user, and what it may do at the moment. @returns {Promise<Rights>} */
export const rights = () => read("/_access");

/** Whether the user may do something with a resource. @param {Rights} rights @param {string} verb @param {string} name */
export const may = (rights, verb, name) => Boolean(own(rights.resources, name)?.can.includes(verb));

/** The resources with which the user may do something. @param {Rights} rights @param {string[]} verbs */
export const namesWith = (rights, ...verbs) => Object.keys(rights.resources).filter((name) => verbs.some((verb) => may(rights, verb, name)));

/** Begins a session with a key or token, which is not kept; throws what the server says against it. @param {string} given */
export async function beginSession(given) {
  // A header holds no others, and neither does a token.
  if (/[^!-~]/.test(given)) throw new Problem({ detail: "the token is not known", hint: "It has characters that no token has.", status: 401 });
  const response = await fetch(at("/_session"), { method: "POST", headers: { Authorization: `Bearer ${given}` } });
  if (!response.ok) throw await problemOf(response);
}

/** Ends the session, and with it what it has opened in other tabs. */
export async function endSession() {
  const response = await fetch(at("/_session"), { method: "DELETE" });
  // A session that has ended already is what was asked for.
  if (!response.ok && response.status !== 401) throw await problemOf(response);
}

/** @param {Response} response */
async function problemOf(response) {
  const said = await response.json().catch(() => undefined);
  return new Problem({ detail: `the server answered ${response.status}`, ...said, status: response.status });
}

/** The address of an API path. @param {string} path */
export const at = (path) => base + path;

/**
 * The document at a path, which has no numbers that are rounded.
 * @param {string} path
 * @returns {Promise<any>}
 */
export const read = async (path) => (await list(at(path))).rows;

/**
 * Sends what changes something that is no row.
 * @param {string} method @param {string} path @param {{ body?: string, headers?: Record<string, string> }} [more]
 */
export async function send(method, path, { body, headers } = {}) {
  const response = await fetch(at(path), { method, body, headers: { ...OWN, ...headers } });
  if (!response.ok) throw await problemOf(response);
  return response.json().catch(() => undefined);
}

/**
 * The text at a path, also that of an answer of one of the statuses `also`.
 * @param {string} path @param {number[]} [also]
 */
export async function text(path, also = []) {
  const response = await fetch(at(path), { headers: OWN });
  if (response.ok || also.includes(response.status)) return response.text();
  throw await problemOf(response);
}

/** Whether the server is not there, or not yet able: what may be over when it is tried again. @param {any} error */
export const isPassing = (error) =>
  error instanceof TypeError || (error instanceof Problem && [429, 502, 503, 504].includes(/** @type {any} */ (error).status));

/** Whether the server asks who the user is. @param {any} error */
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

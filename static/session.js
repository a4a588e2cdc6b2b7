/** The server that this page came from, and the token that it may want. */

import { list, Problem } from "./diorama.js";

/** Where the gateway is: its address without a slash at the end. */
export const base = new URL("..", import.meta.url).href.replace(/\/$/, "");

/** What every request needs. */
export const options = () => ({ token: sessionStorage.getItem("diorama.token") ?? undefined });

/** @returns {Record<string, string>} */
function bearer() {
  const { token } = options();
  return token ? { Authorization: `Bearer ${token}` } : {};
}

/** @param {string} token Kept while the tab is open. */
export const keepToken = (token) => sessionStorage.setItem("diorama.token", token);

/** The address of an API path. @param {string} path */
export const at = (path) => base + path;

/**
 * The document at a path.
 * @param {string} path
 * @returns {Promise<any>}
 */
export const read = async (path) => (await list(at(path), "", options())).rows;

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

/** The text at a path. @param {string} path */
export async function text(path) {
  const response = await fetch(at(path), { headers: bearer() });
  if (!response.ok) throw new Problem({ detail: `the server answered ${response.status}`, status: response.status });
  return response.text();
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

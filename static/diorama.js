/**
 * Diorama in a browser: reads and writes rows, follows events, keeps lists live. No dependencies.
 *
 * A resource is its URL: "/products", "http://localhost:8080/products". A query is what the URL of a list takes, as text or as
 * an object: `{ price: "lt.300", order: "name", limit: 20 }`.
 *
 * @typedef {Record<string, any>} Row
 * @typedef {string | URLSearchParams | Record<string, any>} Query
 * @typedef {{ parse(text: string): any, stringify(value: any): string }} Json
 * @typedef {{ token?: string, ifMatch?: string, wait?: number, headers?: Record<string, string>, signal?: AbortSignal, json?: Json }} Options
 *   `ifMatch`: change only this version (an ETag); `wait`: seconds to wait for the source; `json`: reads and writes rows in place of
 *   JSON, which rounds numbers beyond 2^53.
 * @typedef {{ status: number, etag?: string, position?: string, operation?: string }} Told
 * @typedef {{ type: string, id?: string, seq?: number, position?: string, record?: Row, changed?: string[] } & Row} Frame
 * @typedef {"loading" | "loaded" | "live" | "offline" | "failed" | "closed"} Status
 * @typedef {{ status: Status, transport?: string, error?: any }} State
 * @typedef {(problem: Problem) => string | undefined | void | Promise<string | undefined | void>} Renew
 *   Called when the credentials have ended. It returns a new token, or nothing if the cookie of a new session is there; it throws to
 *   give up.
 */

/**
 * Refusal of the server: `status`, a stable `code`, `detail`, `hint`, and `errors` by column; `close` if it has closed a connection with
 * that code.
 */
export class Problem extends Error {
  /** @param {Row} said */
  constructor(said) {
    super(said.detail);
    Object.assign(this, said);
  }
}

/**
 * The rows of a query.
 * @param {string} resource @param {Query} [query] @param {Options} [options]
 * @returns {Promise<Told & { rows: Row[], total: number }>}
 */
export async function list(resource, query, options) {
  const { told, body, headers } = await call("GET", address(resource, query), options);
  return { ...told, rows: body, total: Number(headers.get("X-Total-Count") ?? body.length) };
}

/**
 * One row, with the `etag` that a change of this version names.
 * @param {string} resource @param {string | number} id @param {Options} [options]
 */
export const get = (resource, id, options) => write("GET", resource, id, options);

/**
 * Adds a row; the id is in it, or in `options.id`, or made by the server.
 * @param {string} resource @param {Row} row @param {Options & { id?: string | number }} [options]
 */
export const insert = (resource, row, options) => write("POST", resource, options?.id, options, row);

/**
 * Replaces a row, or makes it.
 * @param {string} resource @param {string | number} id @param {Row} row @param {Options} [options]
 */
export const replace = (resource, id, row, options) => write("PUT", resource, id, options, row);

/**
 * Changes some columns of a row.
 * @param {string} resource @param {string | number} id @param {Row} changes @param {Options} [options]
 */
export const patch = (resource, id, changes, options) => write("PATCH", resource, id, options, changes);

/**
 * Removes a row.
 * @param {string} resource @param {string | number} id @param {Options} [options]
 */
export const remove = (resource, id, options) => write("DELETE", resource, id, options);

/**
 * Follows the events of rows that match: each once and in order, or a `reset` frame that says to read again. Goes over a
 * WebSocket, or server-sent events, or polls; comes back by itself where it was. When the credentials end, it asks `renew` for others and
 * comes back too. It fails for good when the server refuses it, or has loaded other access rules.
 * @param {string} resource @param {Query} query
 * @param {{ since?: string, token?: string, renew?: Renew, json?: Json, onFrame: (frame: Frame, position: string) => void,
 *   onState?: (state: State) => void }} options
 * @returns {{ close(): void, readonly position: string }}
 */
export function subscribe(resource, query, { since = "now", token, renew, json, onFrame, onState = () => {} }) {
  const ended = new AbortController();
  let best = TRANSPORTS.length; // the first transport that has ever worked here

  /** Runs one connection to its end; returns whether there was one, and why it ended. */
  async function connect(/** @type {number} */ at) {
    const { name, run } = TRANSPORTS[at];
    const connection = new AbortController();
    const end = () => connection.abort();
    ended.signal.addEventListener("abort", end);
    let greeted = false;
    let error = /** @type {unknown} */ (undefined);
    let epoch = "";
    let patience = 10;
    let timer = setTimeout(end, patience * 1000);
    /** @param {Frame} [frame] Nothing is a sign of life. */
    const take = (frame) => {
      if (connection.signal.aborted) return;
      clearTimeout(timer);
      if (frame?.type === "hello") {
        if (!greeted) onState({ status: "live", transport: name });
        greeted = true;
        best = Math.min(best, at);
        patience = 2 * frame.heartbeat + 5;
      }
      timer = setTimeout(end, patience * 1000);
      if (!frame) return;
      if (frame.type === "bye") error = ending(frame.code, frame.reason);
      epoch = frame.epoch ?? epoch;
      if (frame.position ?? frame.seq) since = frame.position ?? `${epoch}:${frame.seq}`;
      onFrame(frame, since);
    };
    try {
      const place = (/** @type {object=} */ more) => address(`${resource}/events`, query, { since, ...more });
      await run(place, take, { token, json, signal: connection.signal });
    } catch (reason) {
      error ??= reason;
    }
    clearTimeout(timer);
    end();
    ended.signal.removeEventListener("abort", end);
    const refusal = isRefusal(error) ? error : undefined;
    if (!refusal && !ended.signal.aborted) onState({ status: "offline", transport: name, error });
    return { greeted, refusal };
  }

  /** Gets other credentials if theirs were refused; otherwise this is the end. @param {any} problem */
  async function recover(problem) {
    try {
      if (problem.status !== 401 || !renew) throw problem;
      onState({ status: "offline", error: problem });
      token = (await renew(problem)) ?? undefined;
    } catch (error) {
      if (ended.signal.aborted) return;
      ended.abort();
      onState({ status: "failed", error });
    }
  }

  (async () => {
    for (let failures = 0; !ended.signal.aborted; failures += 1) {
      let refusal;
      for (let at = best % TRANSPORTS.length; at < TRANSPORTS.length && !ended.signal.aborted; at += 1) {
        const told = await connect(at);
        refusal = told.refusal;
        if (told.greeted) failures = 0;
        if (told.greeted || refusal) break;
      }
      if (refusal && !ended.signal.aborted) await recover(refusal);
      if (!ended.signal.aborted) await backoff(failures);
    }
  })();
  return {
    close: () => {
      ended.abort();
      onState({ status: "closed" });
    },
    get position() {
      return since;
    },
  };
}

/**
 * Keeps the rows of a query live: what `onChange` gets is at each moment what `list` gives, or was a moment ago.
 *
 * A change of cells that the order does not look at is made in place; after any other that concerns the query, the rows are read
 * again, once for all that came meanwhile. Rows are never changed, but replaced. When the server has loaded other access rules, the rows are
 * read again, too. With `follow: false` they are read only once.
 * @param {string} resource @param {Query} query
 * @param {{ token?: string, renew?: Renew, json?: Json, follow?: boolean,
 *   onChange: (rows: Row[], about: { total: number, offset: number, position?: string, frames: Frame[] }) => void,
 *   onState?: (state: State) => void, onFrame?: (frame: Frame) => void }} options
 * @returns {{ close(): void, move(offset: number, limit: number): void, readonly rows: Row[], readonly total: number }}
 */
export function live(resource, query, { token, renew, json, follow = true, onChange, onState = () => {}, onFrame = () => {} }) {
  const ended = new AbortController();
  const options = { token, json, signal: ended.signal };
  const asked = address(resource, query).searchParams;
  let moved = false; // while rows of another page were being read
  const order = ["order", "_sort", "sort"].map((name) => asked.get(name) ?? "").join();
  // Names in quotes and renamed columns are not understood here: then rows are read again.
  const plain = !/[":]/.test(order + (asked.get("select") ?? ""));
  const filter = new URLSearchParams(asked);
  for (const name of OF_LISTS) filter.delete(name);

  let /** @type {Row[]} */ rows = [];
  let total = 0;
  let position = "";
  let offset = 0;
  let idColumn = "";
  let /** @type {Frame[]} */ told = []; // what the next call of onChange is about
  let /** @type {[Frame, string][]} */ waiting = []; // what is not in `rows` yet
  let reading = false;
  let /** @type {State} */ stream = { status: "loading" };
  let /** @type {ReturnType<typeof setTimeout> | undefined} */ timer;
  let /** @type {ReturnType<typeof subscribe> | undefined} */ events;
  let /** @type {Promise<string | undefined> | undefined} */ asking;

  /** Asks for credentials, once for all that need them at the moment. */
  const renewed = renew && ((/** @type {Problem} */ problem) => {
    const given = async () => (options.token = (await renew(problem)) ?? undefined);
    return (asking ??= given().finally(() => (asking = undefined)));
  });

  const change = () => {
    onChange(rows, { total, offset, position, frames: told });
    told = [];
  };

  /** Makes a change in place; tells whether it could. */
  function fold(/** @type {Frame} */ frame, /** @type {string} */ at) {
    if (!CHANGES.has(frame.type)) return true;
    const [epoch, seq] = position.split(":");
    const [itsEpoch, itsSeq] = at.split(":");
    if (epoch === itsEpoch && Number(itsSeq) <= Number(seq) && frame.type !== "reset") return true;
    const { id, record, changed, type } = frame;
    if (type !== "RecordChanged" || !plain || !record || !changed?.every((name) => !order.includes(name))) return false;
    // Other ids may be written otherwise in their row.
    if (!rows.every((row) => isExact(row[idColumn]))) return false;
    // Rules may show fewer columns in events than in lists.
    const before = rows.find((row) => String(row[idColumn]) === id);
    if (before && !Object.keys(before).every((name) => Object.hasOwn(record, name))) return false;
    rows = rows.map((row) => (String(row[idColumn]) === id ? record : row));
    return true;
  }

  function drain() {
    timer = undefined;
    if (reading || ended.signal.aborted) return;
    const news = waiting;
    waiting = [];
    told.push(...news.map(([frame]) => frame));
    if (!news.every(([frame, at]) => fold(frame, at))) read();
    else if (news.some(([frame]) => CHANGES.has(frame.type))) change();
  }

  function take(/** @type {Frame} */ frame, /** @type {string} */ at) {
    onFrame(frame);
    waiting.push([frame, at]);
    timer ??= setTimeout(drain, 20);
  }

  /** Reads the rows; what comes meanwhile waits, and is newer or known. */
  async function read() {
    reading = true;
    let caughtUp = () => {};
    for (let failures = 0; !ended.signal.aborted; failures += 1) {
      told.push(...waiting.map(([frame]) => frame));
      waiting = [];
      try {
        moved = false;
        const found = await list(resource, asked, options);
        idColumn ||= (await call("GET", address(`${resource}/_schema`), options)).body.id;
        if (moved) continue;
        ({ rows, total, position = "" } = found);
        offset = Number(asked.get("offset"));
        break;
      } catch (error) {
        if (ended.signal.aborted || (await isOver(error))) return;
        await backoff(failures);
        caughtUp = () => onState(stream);
      }
    }
    if (ended.signal.aborted) return;
    change();
    caughtUp();
    if (follow) events ??= subscribe(resource, filter, { ...options, since: position, renew: renewed, onFrame: take, onState: tell });
    else onState((stream = { status: "loaded" }));
    // Bursts are read once.
    timer = setTimeout(drain, 100);
    reading = false;
  }

  /** Says why rows could not be read, and whether that is the end. @param {any} error */
  async function isOver(error) {
    const isFinal = error instanceof Problem && FINAL.has(/** @type {any} */ (error).status);
    const asks = isFinal && /** @type {any} */ (error).status === 401 && renewed;
    if (!isFinal || asks) onState({ status: "offline", error });
    if (!isFinal) return false;
    const reason = asks ? await asks(error).then(() => undefined, (why) => why ?? error) : error;
    if (!reason || ended.signal.aborted) return ended.signal.aborted;
    onState({ status: "failed", error: reason });
    close();
    return true;
  }

  /** Takes a state of the events. @param {State} state */
  function tell(state) {
    stream = state;
    if (state.status !== "failed") return onState(state);
    events = undefined;
    if (state.error?.close !== RULES) {
      onState(state);
      return close();
    }
    // Other rows may be visible now.
    onState((stream = { ...state, status: "offline" }));
    moved = true;
    if (reading) return;
    reading = true;
    backoff(2).then(read);
  }

  function close() {
    ended.abort();
    clearTimeout(timer);
    events?.close();
  }

  onState({ status: "loading" });
  read();
  return {
    close,
    /** Shows another page of the query. */
    move(offset, limit) {
      asked.set("offset", `${offset}`);
      asked.set("limit", `${limit}`);
      moved = true;
      if (!reading) read();
    },
    get rows() {
      return rows;
    },
    get total() {
      return total;
    },
  };
}

const OF_LISTS = "order limit offset after _sort _order _page _limit _start _end _per_page sort range explain".split(" ");
const CHANGES = new Set(["RecordInserted", "RecordChanged", "RecordRemoved", "Invalidated", "reset"]);
/** Whether an id is the text of its value. A number that is an object comes from another JSON, and knows its own text. @param {any} id */
const isExact = (id) => typeof id === "string" || Number.isSafeInteger(id) || (typeof id === "object" && /^-?\d+$/.test(id));
/** Refusals that trying again does not help. */
const FINAL = new Set([400, 401, 403, 404, 405, 406, 414]);
/** Whether the server itself has said so, and not something in between. @param {any} error */
const isRefusal = (error) => error instanceof Problem && FINAL.has(/** @type {any} */ (error).status) && Boolean(/** @type {any} */ (error).code);

/** Close codes: the credentials have ended, and other access rules were loaded. */
const CREDENTIALS = 4401;
const RULES = 4403;

/** What a close code says of the rights of the caller. @param {number} close @param {string} detail */
function ending(close, detail) {
  if (close === CREDENTIALS) return new Problem({ status: 401, code: "unauthenticated", detail, close });
  if (close === RULES) return new Problem({ status: 403, code: "forbidden", detail, close });
}

/**
 * @typedef {(place: (more?: object) => URL, take: (frame?: Frame) => void, options: Options) => Promise<unknown>} Run
 * @type {{ name: string, run: Run }[]}
 */
const TRANSPORTS = [
  { name: "WebSocket", run: overSocket },
  { name: "server-sent events", run: overStream },
  { name: "polling", run: byPolling },
];

/** @type {Run} */
function overSocket(place, take, { token, json = JSON, signal }) {
  const url = place();
  url.protocol = url.protocol.replace("http", "ws");
  const bearer = token && `bearer.${btoa(token).replace(/\+/g, "-").replace(/\//g, "_").replace(/=/g, "")}`;
  const socket = new WebSocket(url, ["diorama.v1+json", bearer ?? []].flat());
  socket.onmessage = ({ data }) => take(json.parse(data));
  return new Promise((done, failed) => {
    socket.onclose = ({ code, reason }) => {
      const problem = ending(code, reason);
      if (problem) failed(problem);
      else done(undefined);
    };
    signal?.addEventListener("abort", () => done(socket.close()));
  });
}

/** @type {Run} */
async function overStream(place, take, options) {
  const response = await ask("GET", place(), { ...options, headers: { Accept: "text/event-stream" } });
  const reader = /** @type {ReadableStream} */ (response.body).pipeThrough(new TextDecoderStream()).getReader();
  for (let text = ""; ; ) {
    const { value, done } = await reader.read();
    if (done) return;
    const events = (text + value).split("\n\n");
    text = events.pop() ?? "";
    for (const event of events) {
      const field = (/** @type {string} */ name) => event.match(`(?:^|\n)${name}: (.*)`)?.[1];
      const [data, position] = [field("data"), field("id")];
      take(data ? (options.json ?? JSON).parse(data) : position && { type: "heartbeat", position });
    }
  }
}

/** @type {Run} */
async function byPolling(place, take, options) {
  for (let wait = 0; ; wait = 25) {
    for (const frame of (await call("GET", place({ wait }), options)).body) take(frame);
  }
}

/** @param {string} resource @param {Query} [query] @param {Row} [more] */
function address(resource, query = "", more = {}) {
  const url = new URL(resource, globalThis.location?.href);
  const pairs = typeof query === "string" || query instanceof URLSearchParams ? new URLSearchParams(query) : Object.entries(query);
  for (const [name, value] of [...pairs, ...Object.entries(more)]) {
    for (const each of [value ?? []].flat()) url.searchParams.append(name, each);
  }
  return url;
}

/**
 * @param {string} method @param {string} resource @param {string | number | undefined} id @param {Options} [options] @param {Row} [row]
 * @returns {Promise<Told & { record?: Row }>} 202 is on its way to the source, as `operation` tells; else it is done.
 */
async function write(method, resource, id, options, row) {
  const place = id === undefined ? resource : `${resource}/${encodeURIComponent(id)}`;
  const { told, body } = await call(method, address(place), options, row);
  return { ...told, record: body };
}

/** @param {string} method @param {URL} url @param {Options} [options] @param {Row} [row] */
async function call(method, url, options, row) {
  const response = await ask(method, url, options, row);
  const { status, headers } = response;
  const header = (/** @type {string} */ name) => headers.get(name) ?? undefined;
  const told = { status, etag: header("ETag"), position: header("Dio-Position"), operation: header("Dio-Operation") };
  return { told, headers, body: status === 204 ? undefined : (options?.json ?? JSON).parse(await response.text()) };
}

/** @param {string} method @param {URL} url @param {Options} [options] @param {Row} [row] */
async function ask(method, url, { token, ifMatch, wait, headers, signal, json = JSON } = {}, row) {
  const all = {
    Accept: "application/json",
    ...(row && { "Content-Type": "application/json" }),
    ...(token && { Authorization: `Bearer ${token}` }),
    // Without TLS a browser does not say which page sends the cookie of a session.
    ...(!token && url.origin === globalThis.location?.origin && { "X-Requested-With": "diorama" }),
    ...(ifMatch && { "If-Match": ifMatch }),
    ...(wait && { Prefer: `wait=${wait}` }),
    ...headers,
  };
  const response = await fetch(url, { method, headers: all, body: row && json.stringify(row), signal });
  if (response.ok) return response;
  const said = await response.json().catch(() => ({ detail: `the server answered ${response.status}` }));
  throw new Problem({ ...said, status: response.status });
}

/** Waits: longer after each failure, and not all clients at the same time. */
export function backoff(/** @type {number} */ failures) {
  const longest = Math.min(15_000, 250 * 2 ** failures);
  return new Promise((done) => setTimeout(done, longest * (0.5 + Math.random() / 2)));
}

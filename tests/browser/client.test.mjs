// diorama.js in Chromium: whatever happens to rows, connection and server, the page shows what the server has.

import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { launch, Server, until } from "./harness.mjs";

const { ROOT, WORK } = process.env;
let browser;
let server;

before(async () => {
  browser = await launch();
  server = await new Server((text) => text.replace("[server]", '[server]\ncors = ["null"]')).start();
});
after(async () => {
  await browser?.close();
  await server?.stop();
});

/** A page on which `lives` follow queries of products; each keeps the states it was in. */
async function follow(queries, prepare = async () => {}) {
  const page = await browser.newPage();
  await prepare(page);
  await page.goto(server.url);
  await page.evaluate(async (queries) => {
    const diorama = await import("/static/diorama.js");
    Object.assign(window, { diorama, states: queries.map(() => []) });
    const begin = (query, at) => diorama.live("/products", query, { onChange() {}, onState: (state) => states[at].push(state) });
    window.lives = queries.map(begin);
  }, queries);
  await settled(page, queries);
  return page;
}

/** Waits until the page has what the server gives, and is connected. */
const settled = (page, queries) =>
  until("what the server has", () =>
    page.evaluate(async (queries) => {
      for (const [at, query] of queries.entries()) {
        const fresh = await diorama.list("/products", query);
        const same = JSON.stringify(fresh.rows) === JSON.stringify(lives[at].rows) && fresh.total === lives[at].total;
        if (!same || states[at].at(-1).status !== "live") return false;
      }
      return true;
    }, queries),
  );

const transport = (page) => page.evaluate(() => states[0].at(-1).transport);

/** Changes that move rows into, out of and within what the queries show. */
async function change(round) {
  const id = `test-${round}`;
  await server.send("POST", `/products/${id}`, { name: `Test ${round}`, price: 200 + round, category_id: 2 });
  await server.send("PATCH", "/products/rye", { price: 100 + 7 * round });
  await server.send("PATCH", "/products/rye", { description: `changed ${round}` });
  await server.send("PATCH", `/products/${id}`, { price: 900 - round });
  await server.send("PATCH", "/products/baguette", { category_id: round % 2 ? 2 : 1 });
  if (round % 3 === 2) await server.send("DELETE", `/products/test-${round - 1}`);
}

const QUERIES = [
  { order: "price.desc", limit: 5 },
  { category_id: 2, order: "name" },
  { price: ["gte.150", "lt.400"], select: "name,price", limit: 10 },
  {},
];

test("the page of docs/browser.md works in a file, and through a crash of the server", async () => {
  const text = readFileSync(`${ROOT}/docs/browser.md`, "utf8").match(/```html\n([^]*?)```/)[1];
  const path = `${WORK}/page.html`;
  writeFileSync(path, text.replaceAll("http://localhost:8080", server.url));
  const page = await browser.newPage();
  await page.goto(`file://${path}`);
  const shows = async (seconds) =>
    until("the rows", async () => {
      const rows = await server.send("GET", "/products?price=lt.500&order=price.desc&limit=10");
      const shown = await page.locator("tr").evaluateAll((rows) => rows.map((row) => [...row.cells].map((cell) => cell.textContent)));
      const state = await page.locator("#state").textContent();
      return state === "live" && JSON.stringify(shown) === JSON.stringify(rows.map((row) => [row.name, `${row.price}`]));
    }, seconds);
  await shows();
  await server.send("POST", "/products/pasted", { name: "Pasted", price: 499, category_id: 1 });
  await shows();
  await server.send("PATCH", "/products/pasted", { price: 498 });
  await shows();
  await server.stop("SIGKILL");
  await until("offline", async () => (await page.locator("#state").textContent()) === "offline");
  assert.equal(await page.locator("tr").count(), 10, "the rows stay");
  await server.start();
  await server.send("DELETE", "/products/pasted");
  await shows();
  await page.close();
});

test("rows are those of the server through changes, a restart and a crash", async () => {
  const page = await follow(QUERIES);
  assert.equal(await transport(page), "WebSocket");
  for (let round = 0; round < 4; round += 1) await change(round);
  await settled(page, QUERIES);
  await server.restart("SIGTERM");
  await change(4);
  await settled(page, QUERIES);
  const writing = change(5);
  await writing;
  await server.restart("SIGKILL");
  await change(6);
  await settled(page, QUERIES);
  await page.close();
});

test("where sockets are blocked, events come as server-sent events", async () => {
  const page = await follow(QUERIES, (page) => page.routeWebSocket(/events/, (socket) => socket.close()));
  assert.equal(await transport(page), "server-sent events");
  await change(7);
  await settled(page, QUERIES);
  await server.restart("SIGKILL");
  await change(8);
  await settled(page, QUERIES);
  assert.equal(await transport(page), "server-sent events");
  await page.close();
});

test("where streams are blocked too, events are polled", async () => {
  const page = await follow(QUERIES, async (page) => {
    await page.routeWebSocket(/events/, (socket) => socket.close());
    await page.route(/events/, (route) =>
      route.request().headers().accept === "text/event-stream" ? route.abort() : route.continue(),
    );
  });
  assert.equal(await transport(page), "polling");
  await change(9);
  await settled(page, QUERIES);
  await page.close();
});

test("a change of a cell that the order does not look at costs no reading", async () => {
  const page = await follow([{ order: "price.desc", limit: 5 }]);
  const top = await page.evaluate(() => lives[0].rows[0]);
  const reads = [];
  // The page around it asks how the server is every few seconds.
  const isOfRows = (url) => new URL(url).pathname.startsWith("/products");
  page.on("request", (request) => isOfRows(request.url()) && reads.push(request.url()));
  await server.send("PATCH", `/products/${top.id}`, { description: "in place" });
  await until("changed", () => page.evaluate(() => lives[0].rows[0].description === "in place"));
  assert.deepEqual(reads, []);
  await page.close();
});

test("writes answer with the row; a change of a version that is gone is refused", async () => {
  const page = await follow([{}]);
  const told = await page.evaluate(async () => {
    const { get, insert, patch, Problem, remove, replace } = window.diorama;
    const made = await insert("/products", { name: "Made", price: 1 }, { id: "made/ü?", wait: 10 });
    const { etag } = await get("/products", "made/ü?");
    const patched = await patch("/products", "made/ü?", { price: 2 }, { ifMatch: etag });
    const late = await patch("/products", "made/ü?", { price: 3 }, { ifMatch: etag }).catch((error) => error);
    const replaced = await replace("/products", "made/ü?", { name: "Again", price: 4 });
    const removed = await remove("/products", "made/ü?", { wait: 10 });
    const gone = await get("/products", "made/ü?").catch((error) => error);
    const isProblem = late instanceof Problem && gone instanceof Problem;
    return { made, patched, late: late.code, replaced, removed, gone: gone.status, isProblem };
  });
  assert.deepEqual([told.made.status, told.made.record.price], [201, 1]);
  assert.deepEqual([told.patched.status, told.patched.record.price], [202, 2]);
  assert.match(told.patched.operation, /^\/operations\/op_/);
  assert.deepEqual([told.late, told.replaced.record.name, told.removed.status], ["precondition-failed", "Again", 200]);
  assert.deepEqual([told.gone, told.isProblem], [404, true]);
  await page.close();
});

test("a query that is refused fails with the reason, and is not repeated", async () => {
  const page = await browser.newPage();
  await page.goto(server.url);
  const states = await page.evaluate(async () => {
    const { live } = await import("/static/diorama.js");
    const states = [];
    await new Promise((done) => {
      const onState = ({ status, error }) => {
        states.push([status, error?.code]);
        if (status === "failed") done();
      };
      live("/products", { prize: "gt.5" }, { onChange() {}, onState });
    });
    return states;
  });
  assert.deepEqual(states, [["loading", undefined], ["failed", "unknown-column"]]);
  await page.close();
});

test("a server that asks for a token gets it on every transport", async () => {
  const token = "a+token/of=16-bytes";
  const configure = (text) => text.replace("[server]", `[server]\nauth = { tokens = ["env:BROWSER_TOKEN"] }`);
  process.env.BROWSER_TOKEN = token;
  const guarded = await new Server(configure).start();
  for (const blocked of [false, true]) {
    const page = await browser.newPage();
    if (blocked) await page.routeWebSocket(/events/, (socket) => socket.close());
    await page.goto(guarded.url);
    await page.evaluate(async (token) => {
      const { live } = await import("/static/diorama.js");
      window.live = live("/products", { limit: 3 }, { token, onChange() {}, onState: (state) => (window.state = state) });
    }, token);
    await until("live", () => page.evaluate(() => state.status === "live" && window.live.rows.length === 3));
    assert.equal(await page.evaluate(() => state.transport), blocked ? "server-sent events" : "WebSocket");
    await page.close();
  }
  await guarded.stop();
});

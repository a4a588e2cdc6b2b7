// What the explorer says when something is not as it should be, and that it recovers by itself.

import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { readFileSync, writeFileSync } from "node:fs";
import { accessible, Server, shot, signIn, suite, until } from "./harness.mjs";

const TOKEN = "a-token-of-the-explorer";
let server;
let page;
const own = suite(() => new Server((text) => text.replace('csv = "products.csv"', 'csv = "products.csv", settle = "1s"')), 60_000);
beforeEach(() => ({ server, page } = own));

const open = (place = "/", of = server) => page.goto(`${of.url}/#${place}`);
const shows = (text) => page.getByText(text).first().waitFor();

test("the reasons of a resource's health are read in the overview", async () => {
  const list = `${server.folder}/products.csv`;
  const before = readFileSync(list);
  writeFileSync(list, "nothing of a list\n");
  await server.send("POST", "/products/_refresh").catch(() => {});
  const { reasons } = await until("a reason", async () => {
    const { products } = (await (await fetch(`${server.url}/readyz`)).json()).dios;
    return products.reasons.length > 0 && products;
  });
  await open();
  for (const reason of reasons) await page.locator(".overview").getByText(reason.split(":")[0]).first().waitFor();
  assert.doesNotMatch(await page.locator(".overview").innerText(), /\[object/);
  await shot(page, "health");
  await accessible(page);
  writeFileSync(list, before);
  await server.send("POST", "/products/_refresh");
  await until("fine", async () => (await page.locator(".overview").innerText()).includes("fine"));
});

test("a resource that cannot be read yet says why, and its rows come when it can", async () => {
  const starting = { status: 503, contentType: "application/problem+json", body: JSON.stringify({ status: 503, code: "not-ready", detail: "the first copy is still being read" }) };
  const reason = "the last refresh failed: the source says that it is closed";
  await page.route(/\/products\?/, (route) => route.fulfill(starting));
  await page.route(/\/readyz$/, (route) =>
    route.fulfill({ ...starting, body: JSON.stringify({ status: "starting", dios: { products: { ready: false, reasons: ["the first copy is being read", reason] } } }) }));
  await open("/products");
  await shows(reason);
  await page.locator(".badge", { hasText: "not ready" }).waitFor();
  await shows("It is being tried again.");
  await accessible(page);
  await page.unrouteAll();
  await page.locator(".badge", { hasText: "live" }).waitFor();
  await page.getByRole("link", { name: "rye", exact: true }).waitFor();
  assert.equal(await page.getByText(reason).count(), 0);
});

test("a page that is opened while the server is down comes by itself when it is there", async () => {
  for (const [place, what] of [["/orders", "live"], ["/orders/1001", "Save"], ["/operations", "every resource"], ["/products/events", "live"], ["/", "categories"], ["/webhooks", "POST /webhooks/products"], ["/readyz", '"status": "ready"']]) {
    await open("/nowhere");
    await shows("there is");
    await server.stop("SIGKILL");
    await page.evaluate((place) => (location.hash = place), place);
    await shows("The server cannot be reached.");
    await server.start();
    await page.locator("main").getByText(what).first().waitFor({ state: "attached" });
    await until("without a complaint", async () => (await page.getByText("The server cannot be reached.").count()) === 0);
  }
});

test("with tokens: a wrong one is told as wrong, also later, and the links below show what they lead to", async () => {
  process.env.EXPLORER_TOKEN = TOKEN;
  const guarded = await new Server((text) => text.replace("[server]", '[server]\nauth = { tokens = ["env:EXPLORER_TOKEN"] }')).start();
  await open("/", guarded);
  await signIn(page, "another-token-of-16-bytes");
  await shows("This key or token is not accepted:");
  await accessible(page);
  await signIn(page, TOKEN);
  await page.getByRole("link", { name: "products", exact: true }).waitFor();
  const links = await page.locator("footer a").evaluateAll((links) => links.map((link) => [link.textContent, link.getAttribute("href")]));
  assert.deepEqual(links.map(([, href]) => href), ["/docs", "#/openapi.json", "#/asyncapi.json", "#/operations", "#/readyz", "#/metrics"]);
  for (const [name, what] of [["OpenAPI document", '"openapi": '], ["AsyncAPI document", '"asyncapi": '], ["Writes under way", "every resource"], ["Readiness", '"ready": true'], ["Metrics", "diorama_dio_rows"]]) {
    await page.locator("footer").getByRole("link", { name }).click();
    await page.locator("main").getByText(what).first().waitFor({ state: "attached" });
  }
  await accessible(page);
  assert.deepEqual(await page.evaluate(() => [sessionStorage.length, localStorage.length, document.cookie]), [0, 0, ""]);
  // The session is one that the server does not know any more.
  await open("/products", guarded);
  await page.locator(".badge", { hasText: "live" }).waitFor();
  process.env.EXPLORER_TOKEN = `${TOKEN}-anew`;
  await guarded.restart();
  await shows("Sign in again: the session has ended.");
  await signIn(page, TOKEN);
  await shows("This key or token is not accepted:");
  await signIn(page, process.env.EXPLORER_TOKEN);
  await page.locator(".badge", { hasText: "live" }).waitFor();
  await guarded.stop();
});

test("writes of all resources name theirs", async () => {
  await server.send("PATCH", "/products/rye", { price: 777 });
  await server.send("PATCH", "/orders/1001", { quantity: 3 });
  await open("/operations");
  const lines = () => page.locator("main tbody tr").evaluateAll((rows) => rows.map((row) => [...row.cells].slice(2, 4).map((cell) => cell.textContent)));
  await until("both", async () => {
    const told = await lines();
    return told.some(([dio, row]) => dio === "products" && row === "rye") && told.some(([dio, row]) => dio === "orders" && row === "1001");
  });
  await page.getByRole("link", { name: "rye" }).first().click();
  await page.getByLabel("price", { exact: true }).waitFor();
});

test("a filter of events that the server refuses is told", async () => {
  await open("/products/events?prize=gt.1");
  await page.getByRole("alert").getByText("prize").waitFor();
});

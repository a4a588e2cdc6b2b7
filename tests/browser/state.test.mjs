// What somebody writes in the explorer is theirs: answers that come late, or in another order, and changes by others do not touch it.

import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Server, suite, until } from "./harness.mjs";

let server;
let page;
const own = suite(() => new Server(), 60_000);
beforeEach(() => ({ server, page } = own));

const open = (place) => page.goto(`${server.url}/#${place}`);
const filter = (column) => page.getByLabel(`Filter ${column}`, { exact: true });
const search = () => page.getByLabel("Search", { exact: true });
const control = (column) => page.getByLabel(column, { exact: true });
const cells = () => page.locator(".grid tbody tr:has(th)").evaluateAll((rows) => rows.map((row) => [...row.cells].map((cell) => cell.textContent)));
const is = (query) => until("in the URL", async () => new URL(page.url()).hash === `#/products?${query}`);

/** Answers that `pick` chooses come `delay` later. */
async function slow(pick, delay) {
  await page.route("**/*", async (route) => {
    const request = route.request();
    const late = pick(request) ? (typeof delay === "function" ? delay(request) : delay) : 0;
    if (!late) return route.continue();
    const response = await route.fetch().catch(() => undefined);
    await sleep(late);
    await (response ? route.fulfill({ response }) : route.abort()).catch(() => {});
  });
}
const isList = (request) => /\/products(\?|$)/.test(request.url()) && request.resourceType() === "fetch";

test("filters and a search that are entered while answers are on their way are all in the URL, and their rows come", async () => {
  await open("/products");
  await page.locator(".badge", { hasText: "live" }).waitFor();
  await slow((request) => request.url().startsWith(`${server.url}/products`), 1_000);
  await filter("price").fill("400");
  await page.getByLabel("Operator for price").selectOption("lt");
  await filter("name").fill("e");
  await filter("name").press("Enter");
  await filter("category_id").pressSequentially("2");
  await page.getByRole("button", { name: "price", exact: true }).click();
  await search().pressSequentially("r");
  await search().press("Enter");
  const query = "price=lt.400&name=ilike.*e*&category_id=eq.2&order=price&q=r";
  await is(query);
  const expected = await server.send("GET", `/products?${query}`);
  assert.ok(expected.length > 0);
  await until("the rows", async () => JSON.stringify((await cells()).map(([id]) => id)) === JSON.stringify(expected.map(({ id }) => id)));
  assert.deepEqual([await filter("price").inputValue(), await filter("name").inputValue(), await search().inputValue()], ["400", "e", "r"]);
});

test("what is being written stays while rows change, the query changes and an answer comes", async () => {
  await open("/products");
  await page.locator(".badge", { hasText: "live" }).waitFor();
  await filter("name").focus();
  await page.keyboard.type("ba");
  await server.send("PATCH", "/products/rye", { price: 744 });
  await page.locator("td", { hasText: /^744$/ }).waitFor();
  // As when somebody goes back and forth.
  await page.evaluate(() => (location.hash = "#/products?order=name"));
  await page.getByRole("button", { name: "name ↑" }).waitFor();
  await page.evaluate(() => (location.hash = "#/products?order=name&select=id,name,price"));
  await until("without the column", async () => (await page.locator(".grid thead tr").first().locator("th").count()) === 3);
  await page.keyboard.type("gu");
  assert.equal(await filter("name").inputValue(), "bagu");
  await page.keyboard.press("Enter");
  await until("in the URL", () => page.url().endsWith("?order=name&select=id,name,price&name=ilike.*bagu*"));
  await until("the row", async () => (await cells()).length === 1);
});

test("an answer that comes after a later one is not shown", async () => {
  await open("/products");
  await page.locator(".badge", { hasText: "live" }).waitFor();
  await slow(isList, (request) => (request.url().includes("price=eq.1") ? 0 : request.url().includes("name=") ? 1_500 : 0));
  await page.evaluate(() => (location.hash = "#/products?name=ilike.*a*"));
  await sleep(300);
  await page.evaluate(() => (location.hash = "#/products?id=eq.rye"));
  await until("the row", async () => JSON.stringify((await cells()).map(([id]) => id)) === '["rye"]');
  await sleep(2_000);
  assert.deepEqual((await cells()).map(([id]) => id), ["rye"]);
  assert.equal(await page.locator(".title strong").textContent(), "1");
});

test("what is written into a row while it is saved is saved too, and nothing else", async () => {
  await open("/products/sourdough");
  await control("price").waitFor();
  const bodies = [];
  page.on("request", (request) => request.method() === "PATCH" && bodies.push(request.postData()));
  await slow((request) => request.url().includes("/products/sourdough"), 700);
  await control("price").fill("691");
  await control("price").press("Enter");
  await control("description").fill("written while it is saved");
  await control("price").fill("692");
  await control("price").press("Enter");
  await until("both", async () => {
    const row = await server.send("GET", "/products/sourdough");
    return row.price === 692 && row.description === "written while it is saved";
  });
  assert.deepEqual(bodies.map((body) => JSON.parse(body)), [{ price: 691 }, { price: 692, description: "written while it is saved" }]);
  assert.equal(await page.getByText("Somebody changed this row meanwhile").count(), 0);
  await until("shown", async () => (await control("price").inputValue()) === "692");
});

test("a form shows what others write, but for the field that somebody is in", async () => {
  await open("/products/baguette");
  await control("price").waitFor();
  await server.send("PATCH", "/products/baguette", { price: 321 });
  await until("shown", async () => (await control("price").inputValue()) === "321");
  await control("name").focus();
  await page.keyboard.press("End");
  await server.send("PATCH", "/products/baguette", { price: 322, name: "Baguette of theirs" });
  await page.locator(".events").getByText("price = 322").waitFor();
  await sleep(300);
  assert.equal(await control("name").inputValue(), "Baguette Tradition");
  // Whoever leaves without a word sees the newest.
  await page.getByRole("heading", { name: "History" }).click();
  await until("shown", async () => (await control("name").inputValue()) === "Baguette of theirs");
  await control("name").focus();
  await page.keyboard.type("x");
  await server.send("PATCH", "/products/baguette", { price: 323 });
  await page.locator(".events").getByText("price = 323").waitFor();
  await page.keyboard.type("y");
  await sleep(300);
  assert.match(await control("name").inputValue(), /xy/);
  assert.equal(await control("price").inputValue(), "322");
});

test("the body of a delivery stays while deliveries are chosen by their state", async () => {
  // Also before the first of them has come.
  await slow((request) => request.url().includes("/deliveries?"), 500);
  await open("/webhooks/products/deliveries");
  await control("Body").fill("written by somebody");
  await page.getByLabel("State").selectOption("failed");
  await until("in the URL", () => page.url().endsWith("?state=failed"));
  await page.getByText("Nothing has come.").waitFor();
  assert.equal(await control("Body").inputValue(), "written by somebody");
});

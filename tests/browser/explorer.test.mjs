// The explorer in Chromium: each page does what it says, has no serious finding of axe, and is left as a screenshot.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import { beforeEach, test } from "node:test";
import { accessible, Server, shot, signIn, suite, until } from "./harness.mjs";

const PHONE = { viewport: { width: 390, height: 800 }, colorScheme: "dark" };

function makeServer() {
  const configure = (text) => text.replace("[dio.products]", '[dio.products]\nmax_age = "1s"\nattempt_timeout = "500ms"');
  return new Server((text) => configure(text).replace("[server]", '[server]\nbase_path = "/api/v1"'));
}

let server;
let page;
const own = suite(makeServer, 20_000);
beforeEach(() => ({ server, page } = own));

const open = (hash = "#/") => page.goto(`${server.url}${hash}`);
const shows = (text) => page.getByText(text, { exact: true }).first().waitFor();

/** A picture, wide and narrow, and what axe has to say. */
async function look(name) {
  await shot(page, name);
  await accessible(page);
  const narrow = await own.browser.newPage(PHONE);
  await narrow.goto(page.url());
  await narrow.locator("h1").waitFor();
  await narrow.waitForLoadState("load");
  await narrow.waitForLoadState("networkidle");
  await shot(narrow, `${name}-phone`);
  await accessible(narrow);
  const overflow = await narrow.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  assert.ok(overflow <= 0, `${name} is ${overflow} pixels too wide for a phone`);
  await narrow.close();
}

const cells = () => page.locator(".grid tbody tr:has(th)").evaluateAll((rows) => rows.map((row) => [...row.cells].map((cell) => cell.textContent)));
const column = async (at) => (await cells()).map((row) => row[at]);

test("the overview lists every resource with its rows and health", async () => {
  await open();
  await page.locator(".overview tbody tr").nth(2).waitFor();
  const rows = await page.locator(".overview tbody tr").evaluateAll((rows) => rows.map((row) => [...row.cells].slice(0, 3).map((cell) => cell.innerText)));
  assert.deepEqual(rows, [["categories", "6", "fine"], ["orders", "20", "fine"], ["products", "40", "fine"]]);
  await look("overview");
  await page.getByRole("link", { name: "products", exact: true }).click();
  await shows("40");
});

test("rows are sorted, filtered, searched and chosen, and the URL is the query of the API", async () => {
  await open("#/products");
  await shows("live");
  assert.equal((await cells()).length, 40);
  await page.getByRole("button", { name: "price", exact: true }).click();
  await page.getByRole("button", { name: "price ↑" }).click();
  await until("sorted", async () => (await column(2))[0] === "820");
  await page.getByLabel("Operator for price").selectOption("lt");
  await page.getByLabel("Filter price").fill("300");
  await page.getByLabel("Filter price").press("Enter");
  await until("filtered", async () => (await column(2)).every((price) => Number(price) < 300));
  await page.getByLabel("Filter name").fill("e");
  await page.getByLabel("Filter name").press("Enter");
  await page.getByLabel("Search", { exact: true }).fill("r");
  await page.getByLabel("Search", { exact: true }).press("Enter");
  await page.getByText(/^Columns/).click();
  await page.getByLabel("category_id integer").uncheck();
  const query = "order=price.desc&price=lt.300&name=ilike.*e*&q=r&select=id,name,price,description";
  await until("in the URL", () => page.url() === `${server.url}#/products?${query}`);
  const expected = await server.send("GET", `/products?${query}`);
  assert.ok(expected.length > 2);
  await until("the rows of the query", async () =>
    JSON.stringify(await cells()) === JSON.stringify(expected.map((row) => [row.id, row.name, `${row.price}`, row.description ?? ""])));
  assert.equal(await page.locator(".title strong").textContent(), `${expected.length}`);
  await look("resource-filtered");
  await page.context().grantPermissions(["clipboard-read", "clipboard-write"]);
  await page.getByText("Copy", { exact: true }).click();
  await page.getByRole("button", { name: "curl" }).click();
  await shows("copied");
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), `curl '${server.url}/products?${query}'`);
  await page.getByLabel("Query", { exact: true }).fill("prize=gt.1");
  await page.getByLabel("Query", { exact: true }).press("Enter");
  await page.getByRole("alert").getByText("did you mean").waitFor();
});

test("a change made by others shows at once, and a restart of the server is survived", async () => {
  await open("#/products?order=name");
  await shows("live");
  await server.send("PATCH", "/products/ciabatta", { price: 411 });
  await page.locator("td.flash", { hasText: "411" }).waitFor();
  await server.send("POST", "/products/aaa", { name: "Aaa", price: 1, category_id: 1 });
  await until("first", async () => (await column(1))[0] === "Aaa");
  await shows("41");
  await look("resource");
  await server.stop("SIGKILL");
  await shows("offline");
  await server.start();
  await server.send("DELETE", "/products/aaa");
  await until("gone", async () => (await column(1))[0] !== "Aaa");
  await shows("live");
});

test("a row is edited with the keyboard, and the write is pending until it is confirmed", async () => {
  await open("#/products/rye");
  await page.getByLabel("price").fill("745");
  await page.getByLabel("price").press("Enter");
  await page.getByRole("row").filter({ hasText: "patch" }).first().getByText("confirmed").waitFor();
  assert.equal((await server.send("GET", "/products/rye")).price, 745);
  await page.locator(".events").getByText("price = 745").waitFor();
  await look("record");
});

test("a row leads to its related rows, with their titles and numbers", async () => {
  await open("#/products/rye");
  const related = page.getByRole("region", { name: "Related rows" });
  await related.getByRole("link", { name: "Bread", exact: true }).waitFor();
  const orders = await (await fetch(`${server.url}/orders?product_id=eq.rye&limit=0`)).headers.get("x-total-count");
  await related.getByRole("row", { name: "orders" }).getByRole("link", { name: orders, exact: true }).click();
  await page.getByRole("heading", { name: "orders" }).waitFor();
  assert.match(page.url(), /#\/orders\?product_id=eq\.rye$/);
  await shows("rye");
  const { id } = (await (await fetch(`${server.url}/orders?product_id=eq.rye&limit=1`)).json())[0];
  await open(`#/orders/${id}`);
  await related.getByRole("link", { name: "Dark Rye" }).click();
  await page.getByRole("heading", { name: "rye" }).waitFor();
  await look("related");
});

test("a change of a row that somebody else changed shows both versions", async () => {
  await open("#/products/spelt");
  await page.getByLabel("name").fill("Spelt of mine");
  await server.send("PATCH", "/products/spelt", { name: "Spelt of theirs", price: 781 });
  await page.locator(".events").getByText("price = 781").waitFor();
  await page.getByRole("button", { name: "Save" }).click();
  await shows("Somebody changed this row meanwhile");
  const versions = await page.locator(".conflict tbody tr").evaluateAll((rows) => rows.map((row) => [...row.cells].map((cell) => cell.textContent)));
  assert.deepEqual(versions, [["name", "Spelt Loaf", "Spelt of theirs", "Spelt of mine"], ["price", "780", "781", "781"]]);
  await look("conflict");
  await page.getByRole("button", { name: "Save mine over it" }).click();
  await until("saved", async () => (await server.send("GET", "/products/spelt")).name === "Spelt of mine");
  assert.equal((await server.send("GET", "/products/spelt")).price, 781);
});

test("a row is added and deleted; what the server refuses is said beside its column", async () => {
  await open("#/products/_new");
  await page.getByLabel("id", { exact: true }).fill("made here");
  await page.getByLabel("price").fill("a lot");
  await page.getByLabel("name").fill("Made here");
  await page.getByRole("button", { name: "Add" }).click();
  await page.getByText("must be a whole number").first().waitFor();
  await page.getByLabel("price").fill("5");
  await page.getByRole("button", { name: "Add" }).click();
  await until("there", () => page.url().endsWith("#/products/made%20here"));
  await page.getByRole("button", { name: "Delete", exact: true }).click();
  await page.getByRole("button", { name: "Delete this row" }).click();
  await until("gone", () => page.url().endsWith("#/products"));
  assert.equal((await fetch(`${server.url}/products/made%20here`)).status, 404);
});

test("a write that fails is parked, says why, and is retried or discarded", async () => {
  const script = "import sqlite3,sys; c=sqlite3.connect(sys.argv[1],isolation_level=None); c.execute('BEGIN EXCLUSIVE'); print(1,flush=True); sys.stdin.read()";
  const lock = spawn("python3", ["-c", script, `${server.folder}/shop.db`], { stdio: ["pipe", "pipe", "inherit"] });
  await once(lock.stdout, "data");
  await open("#/products/macaron");
  const before = await page.getByLabel("price").inputValue();
  for (const price of ["251", "252"]) {
    assert.notEqual(before, price);
    await page.getByLabel("price").fill(price);
    await page.getByRole("button", { name: "Save" }).click();
    await page.getByText("pending").or(page.getByText("parked")).first().waitFor();
    await page.getByText("parked").nth(price - 251).waitFor();
    await until("rolled back", async () => (await page.getByLabel("price").inputValue()) === before);
  }
  await open("#/operations?state=parked");
  await page.getByRole("button", { name: "Discard" }).nth(1).waitFor();
  await look("operations");
  await page.getByRole("button", { name: "Discard" }).first().click();
  await until("one left", async () => (await page.getByRole("button", { name: "Discard" }).count()) === 1);
  const ended = once(lock, "exit");
  lock.stdin.end();
  await ended;
  await page.getByRole("button", { name: "Retry", exact: true }).click();
  await shows("There are none.");
  await until("applied", async () => (await server.send("GET", "/products/macaron")).price === 251);
});

test("events are filtered, paused, and taken up where they were left", async () => {
  await open("#/products/events?price=lt.300");
  await shows("live");
  await server.send("PATCH", "/products/espresso", { price: 251 });
  await server.send("PATCH", "/products/walnut", { price: 299 });
  const lines = () => page.locator(".events li strong").allTextContents();
  await until("told", async () => (await page.getByText("began to match").count()) === 1);
  await page.getByRole("button", { name: "Pause" }).click();
  await server.send("PATCH", "/products/walnut", { price: 760 });
  await shows("paused");
  assert.equal(await page.getByText("ceased to match").count(), 0);
  await page.getByRole("button", { name: "Resume" }).click();
  await page.getByText("ceased to match").waitFor();
  assert.deepEqual((await lines()).filter((id) => id === "espresso").length >= 1, true);
  await look("events");
});

test("a signed test delivery is sent, listed with its effect, and replayed", async () => {
  const list = `${server.folder}/products.csv`;
  writeFileSync(list, readFileSync(list, "utf8").replace(/^(espresso,[^,]*),\d+/m, "$1,265"));
  await open("#/webhooks");
  await page.getByRole("link", { name: "products" }).first().click();
  await page.getByLabel("Secret").fill(readFileSync(`${server.folder}/webhook.secret`, "utf8").trim());
  await page.getByLabel("Body", { exact: true }).fill('{"op":"update","id":"espresso","partial":true,"new":{"price":265}}');
  await page.getByText("it changes the rows of products").waitFor();
  await page.getByRole("button", { name: "Sign and send" }).click();
  await page.getByText("This is no rehearsal").waitFor();
  const posts = [];
  page.on("request", (request) => request.method() === "POST" && posts.push(request.url()));
  await page.getByRole("button", { name: "Leave it" }).click();
  assert.deepEqual(posts, []);
  await page.getByRole("button", { name: "Sign and send" }).click();
  await page.getByRole("button", { name: "Send it" }).click();
  await page.locator("form").getByText("applied", { exact: true }).waitFor();
  await page.getByRole("button", { name: /^msg_/ }).click();
  await page.getByText('"price": 265').waitFor();
  await page.getByRole("button", { name: "Replay", exact: true }).click();
  await page.getByRole("button", { name: "Replay it" }).click();
  await page.getByText(/tried 2 times/).waitFor();
  await look("deliveries");
  await page.getByLabel("Secret").fill("whsec_AAAA");
  await page.getByRole("button", { name: "Sign and send" }).click();
  await page.getByRole("button", { name: "Send it" }).click();
  await page.getByRole("alert").waitFor();
});

test("a table of a quarter of a million rows is scrolled to any place", async () => {
  const big = await new Server((text) => `${text}\n[dio.big]\nsource = { csv = "big.csv" }\nid = "id"\nrefresh_every = "1h"\n`);
  big.files = { "big.csv": `id,name,price\n${Array.from({ length: 250_000 }, (_, at) => `${at},Row ${at},${at % 997}`).join("\n")}\n` };
  await big.start();
  await page.goto(`${big.url}#/big`);
  await page.getByText("250\u202f000").waitFor();
  const viewport = page.locator(".viewport");
  for (const part of [1, 0.5, 0]) {
    await viewport.evaluate((element, part) => element.scrollTo(0, element.scrollHeight * part), part);
    await until("the rows of that place", async () => {
      const [from, height] = await viewport.evaluate((element) => [element.scrollTop, element.scrollHeight - element.clientHeight]);
      const seen = await page.evaluate(() => {
        const box = document.querySelector(".viewport").getBoundingClientRect();
        const at = document.elementFromPoint(box.left + 60, box.top + box.height / 2)?.closest("tr");
        return at?.cells.length > 1 ? Number(at.cells[0].textContent) : undefined;
      });
      return seen !== undefined && Math.abs(seen / 250_000 - from / height) < 0.01;
    });
  }
  await big.stop();
});

test("a token is asked for, and its session goes on after a reload, until sign-out", async () => {
  process.env.EXPLORER_TOKEN = "a-token-of-the-explorer";
  const guarded = await new Server((text) => text.replace("[server]", '[server]\nauth = { tokens = ["env:EXPLORER_TOKEN"] }')).start();
  await page.goto(guarded.url);
  await page.getByRole("dialog", { name: "Sign in" }).waitFor();
  await look("token");
  await signIn(page, "another-token-of-16-bytes");
  await shows("This key or token is not accepted:");
  await signIn(page, "kein Schlüssel");
  await page.getByText("It has characters that no token has.").waitFor();
  await signIn(page, process.env.EXPLORER_TOKEN);
  await page.getByRole("link", { name: "products", exact: true }).click();
  await shows("live");
  await page.reload();
  await shows("live");
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByRole("dialog", { name: "Sign in" }).waitFor();
  await page.reload();
  await page.getByRole("dialog", { name: "Sign in" }).waitFor();
  await guarded.stop();
});

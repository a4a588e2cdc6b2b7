// Two users of one server in Chromium: each page has the rows, columns and actions of its user, live, and nothing else.

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { after, afterEach, before, test } from "node:test";
import { accessible, launch, Server, shot, signIn, until } from "./harness.mjs";

const SECRET = "a secret of the issuer with 32 bytes";
const ROOT = "the-key-of-the-administrator";
/** Seconds for which a short token counts. */
const SHORT = 3;
const CLERK = `
[[allow]]
role = "clerk"
dio = "orders"
can = ["read", "events", "update"]
where = "customer=eq.{claims.sub}"
columns = ["product_id", "quantity", "customer", "status"]
`;
const CONFIG = `
[key.root]
token = "env:ACCESS_ROOT"
role = "admin"

[jwt.shop]
issuer = "https://idp.example"
audience = "shop"
algorithms = ["HS256"]
secret = "env:ACCESS_SECRET"
leeway = "1s"

[[allow]]
role = "manager"
dio = "orders"
can = ["read", "events", "insert", "update", "delete"]
where = "customer=eq.{claims.sub}"

[[allow]]
role = "reader"
dio = "orders"
can = ["read"]
where = "customer=eq.{claims.sub}"
${CLERK}`;

let browser;
let server;
let pages = [];

before(async () => {
  Object.assign(process.env, { ACCESS_ROOT: ROOT, ACCESS_SECRET: SECRET });
  browser = await launch("--host-resolver-rules=MAP bakery.test 127.0.0.1");
  server = await new Server((text) => text + CONFIG).start();
});
after(async () => {
  await browser?.close();
  await server?.stop();
});
afterEach(async () => {
  const complaints = pages.flatMap(({ complaints }) => complaints);
  for (const { page } of pages) await page.context().close();
  pages = [];
  assert.deepEqual(complaints, []);
});

/** A token of the issuer. */
function token(sub, role, seconds = 3600) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const claims = { iss: "https://idp.example", aud: "shop", sub, role, exp: Math.floor(Date.now() / 1000) + seconds };
  const signed = `${part({ alg: "HS256" })}.${part(claims)}`;
  return `${signed}.${createHmac("sha256", SECRET).update(signed).digest("base64url")}`;
}

const asRoot = (method, path, body) => server.send(method, path, body, { Authorization: `Bearer ${ROOT}` });
const give = (id, customer) => asRoot("PATCH", `/orders/${id}`, { customer });

/** A tab, with everything that the server has sent to it: frames, and answers that are no files of the page. */
async function tab(context, url = server.url) {
  const page = await context.newPage();
  page.setDefaultTimeout(20_000);
  const own = { page, context, frames: [], answers: [], urls: [], complaints: [] };
  page.on("pageerror", (error) => own.complaints.push(error.stack));
  page.on("console", (message) => /Content Security Policy/.test(message.text()) && own.complaints.push(message.text()));
  page.on("request", (request) => own.urls.push(request.url()));
  page.on("response", async (response) => {
    if (!response.url().includes("/static/")) own.answers.push(await response.text().catch(() => ""));
  });
  page.on("websocket", (socket) => {
    own.urls.push(socket.url());
    socket.on("framereceived", ({ payload }) => own.frames.push(JSON.parse(payload)));
  });
  pages.push(own);
  await page.goto(url);
  return own;
}

/** A tab of a browser of its own, in which somebody has signed in and opened `place`. */
async function user(given, place = "/orders") {
  const own = await tab(await browser.newContext({ viewport: { width: 1280, height: 800 } }));
  await signIn(own.page, given);
  await own.page.getByRole("button", { name: "Sign out" }).waitFor();
  await own.page.evaluate((place) => (location.hash = place), `#${place}`);
  return own;
}

const live = ({ page }) => page.locator(".badge", { hasText: "live" }).waitFor();
const dialog = ({ page }) => page.getByRole("dialog", { name: "Sign in" });
const ids = ({ page }) => page.locator(".grid tbody th").allTextContents();
const fieldNames = ({ page }) => page.locator(".fields .field label[for]").allTextContents();
const shows = ({ page }, text) => page.getByText(text).first().waitFor();

test("a row that changes its owner leaves one page and enters the other, live, and is never in both", async () => {
  const [ada, grace] = [await user(token("Ada", "clerk")), await user(token("Grace", "manager"))];
  await Promise.all([live(ada), live(grace)]);
  assert.deepEqual([await ids(ada), await ids(grace)], [["1001", "1015"], ["1002", "1003"]]);
  for (const { page } of [ada, grace]) await page.evaluate(() => (window.untouched = true));
  await shot(ada.page, "access-clerk");

  for (let round = 0; round < 4; round += 1) {
    const [from, to, name] = round % 2 ? [grace, ada, "Ada"] : [ada, grace, "Grace"];
    await give("1015", name);
    await until("in the other page only", async () => (await ids(to)).includes("1015") && !(await ids(from)).includes("1015"));
  }
  assert.deepEqual([await ids(ada), await ids(grace)], [["1001", "1015"], ["1002", "1003"]]);
  // Pages have clocks of their own; positions are those of the server. At each of them one user has the row.
  const told = ({ frames }) =>
    frames.filter(({ id, type }) => id === "1015" && type.startsWith("Record")).map(({ seq, left, entered }) => [seq, left ? "left" : entered ? "entered" : "changed"]);
  const opposite = told(grace).map(([seq, what]) => [seq, what === "left" ? "entered" : "left"]);
  assert.deepEqual(told(ada), opposite);
  assert.equal(told(ada).length, 4);
  for (const { page } of [ada, grace]) assert.equal(await page.evaluate(() => window.untouched), true, "no page was loaded again");

  // Rows of others are in no answer: theirs have products that these do not.
  const all = ({ frames, answers }) => JSON.stringify(frames) + answers.join("\n");
  assert.ok(all(grace).includes("butter-croissant") && !all(ada).includes("butter-croissant"));
  assert.ok(all(ada).includes("shortbread") && !all(ada).includes("black-forest"));
});

test("a column that a user may not see reaches its page in no frame and no answer", async () => {
  const [ada, grace] = [await user(token("Ada", "clerk")), await user(token("Grace", "manager"))];
  await Promise.all([live(ada), live(grace)]);
  const heads = ({ page }) => page.locator(".grid thead button").allTextContents();
  assert.deepEqual(await heads(ada), ["id", "product_id", "quantity", "customer", "status"]);
  assert.ok((await heads(grace)).includes("price"));
  for (const [id, own] of [["1001", ada], ["1002", grace]]) {
    await asRoot("PATCH", `/orders/${id}`, { price: 987_654 });
    await asRoot("PATCH", `/orders/${id}`, { quantity: 77 });
    await until("told", async () => (await own.page.locator(".grid tbody td", { hasText: "77" }).count()) === 1);
    await own.page.evaluate((id) => (location.hash = `#/orders/${id}`), id);
    await own.page.getByRole("heading", { name: "History" }).waitFor();
    await shows(own, "quantity = 77");
  }
  const all = ({ frames, answers }) => JSON.stringify(frames) + answers.join("\n");
  assert.ok(all(grace).includes("987654") && /"price"/.test(all(grace)));
  assert.deepEqual(all(ada).match(/.{60}\bprice\b.{60}|987654/g), null);
});

test("only what a user may do is offered, and a refusal says what it means", async () => {
  const ada = await user(token("Ada", "clerk"), "/");
  await shows(ada, "read, update, events");
  assert.deepEqual(await ada.page.locator("nav a").allTextContents(), ["Resources", "Events", "Operations"]);
  assert.equal(await ada.page.locator("footer").getByRole("link", { name: "Metrics" }).isVisible(), false);
  assert.deepEqual(await ada.page.locator("main tbody th").allTextContents(), ["orders"]);
  await shows(ada, "jwt:shop:Ada, role clerk");
  await accessible(ada.page);
  await shot(ada.page, "access-overview");
  await ada.page.evaluate(() => (location.hash = "#/orders/1001"));
  await ada.page.getByRole("button", { name: "Save" }).waitFor();
  assert.deepEqual(await fieldNames(ada), ["id", "product_id", "quantity", "customer", "status"]);
  assert.equal(await ada.page.getByRole("button", { name: "Delete" }).count(), 0);
  await ada.page.getByLabel("customer").fill("Grace");
  await ada.page.getByRole("button", { name: "Save" }).click();
  await shows(ada, "You may not do this: the access rules do not permit this write");
  await ada.page.evaluate(() => (location.hash = "#/metrics"));
  await shows(ada, 'You may not do this: role "clerk" may not administer all resources');
  await ada.page.evaluate(() => (location.hash = "#/orders"));
  await live(ada);
  assert.equal(await ada.page.getByRole("link", { name: "New row" }).count(), 0);

  const reader = await user(token("Ada", "reader"));
  await reader.page.getByRole("link", { name: "1001" }).waitFor();
  await shows(reader, "not followed");
  assert.equal(await reader.page.locator("main").getByRole("link", { name: "Events" }).count(), 0);
  await asRoot("PATCH", "/orders/1001", { quantity: 55 });
  await reader.page.getByRole("button", { name: "Read again" }).click();
  await reader.page.locator(".grid tbody td", { hasText: "55" }).waitFor();
  await reader.page.getByRole("link", { name: "1001" }).click();
  await shows(reader, "You may not change this row.");
  assert.equal(await reader.page.getByLabel("quantity").getAttribute("readonly"), "");
  assert.ok(!reader.urls.some((url) => url.includes("/orders/events")), "it asks for no events");

  const grace = await user(token("Grace", "manager"));
  await grace.page.getByRole("link", { name: "New row" }).click();
  await grace.page.getByRole("button", { name: "Add" }).waitFor();
});

test("the prompt works without a mouse, says what is wrong, and sign-out leads back to it and ends what is open", async () => {
  const ada = await tab(await browser.newContext());
  const { page } = ada;
  await dialog(ada).waitFor();
  await accessible(page);
  await shot(page, "access-sign-in");
  const type = async (given) => {
    await page.keyboard.insertText(given);
    await page.keyboard.press("Enter");
  };
  await type("not-a-token-of-this-server");
  await shows(ada, "This key or token is not accepted: the token is not known.");
  await type(token("Ada", "clerk", -60));
  await shows(ada, "This key or token is not accepted: the token has expired.");
  await page.route("**/_session", (route) => route.fulfill({ status: 204 }));
  await type(token("Ada", "clerk"));
  await shows(ada, "The browser has not kept the session.");
  await page.unrouteAll();
  await page.keyboard.press("Escape");
  await page.getByRole("heading", { name: "You are not signed in" }).waitFor();
  await dialog(ada).waitFor({ state: "detached" });
  await page.getByRole("button", { name: "Sign in" }).focus();
  await page.keyboard.press("Enter");
  await dialog(ada).waitFor();
  const given = token("Ada", "clerk");
  await type(given);
  await page.getByRole("link", { name: "orders" }).click();
  await live(ada);

  // The token is nowhere where it would last, and nowhere where it could be read.
  assert.deepEqual(await page.evaluate(() => [localStorage.length, sessionStorage.length, document.cookie]), [0, 0, ""]);
  assert.deepEqual(ada.urls.filter((url) => url.includes("bearer") || url.includes(given.slice(-20))), []);

  const other = await tab(ada.context, `${server.url}#/orders`);
  await live(other);
  await other.page.evaluate(() => {
    const socket = new WebSocket(`${location.origin.replace("http", "ws")}/orders/events`, ["diorama.v1+json"]);
    socket.onmessage = () => (window.isOpen = true);
    socket.onclose = ({ code, reason }) => (window.ended = `${code} ${reason}`);
  });
  await other.page.waitForFunction(() => window.isOpen);
  await page.getByRole("button", { name: "Sign out" }).press("Enter");
  await Promise.all([dialog(ada).waitFor(), dialog(other).waitFor()]);
  await other.page.waitForFunction(() => window.ended);
  assert.equal(await other.page.evaluate(() => window.ended), "4401 the session has ended");
  for (const { page } of [ada, other]) assert.ok(!(await page.locator("main").innerText()).includes("1001"), "rows stay on the page");
  assert.equal(await page.locator("nav a").count(), 0);
  await page.reload();
  await dialog(ada).waitFor();
  // One tab is enough to sign in.
  await signIn(page, token("Grace", "manager"));
  await Promise.all([live({ page: other.page }), page.getByRole("button", { name: "Sign out" }).waitFor()]);
  assert.deepEqual(await ids(other), ["1002", "1003"]);
});

test("when a token ends, the page asks for another and goes on where it was, with what was written in it", async () => {
  const ada = await user(token("Ada", "clerk", SHORT), "/orders/1001");
  const { page } = ada;
  await page.getByLabel("status").fill("half written");
  await dialog(ada).waitFor();
  await shows(ada, "Sign in again: the session has ended.");
  await asRoot("PATCH", "/orders/1001", { quantity: 31 });
  const reads = ada.urls.length;
  await signIn(page, token("Ada", "clerk"));
  await shows(ada, "quantity = 31");
  assert.equal(await page.getByLabel("status").inputValue(), "half written");
  assert.ok(!ada.urls.slice(reads).some((url) => url.endsWith("since=earliest")), "the events go on at their position");

  // Somebody else gets a page of their own.
  const other = await user(token("Ada", "clerk", SHORT), "/orders/1001");
  await other.page.getByLabel("status").fill("half written");
  await dialog(other).waitFor();
  await signIn(other.page, token("Grace", "manager"));
  await shows(other, 'there is no row "1001"');
  assert.equal(await other.page.getByLabel("status").count(), 0);
});

test("a client gets another token by its callback, once, and continues at its position", async () => {
  const { page, urls } = await tab(await browser.newContext());
  const [first, second] = [token("Ada", "clerk", SHORT), token("Ada", "clerk")];
  await page.evaluate(async ([first, second]) => {
    const { live, subscribe } = await import("/static/diorama.js");
    Object.assign(window, { asked: [], states: [], seen: [], failed: undefined });
    const renew = (problem) => {
      asked.push([problem.status, problem.close]);
      return new Promise((done) => (window.give = () => done(second)));
    };
    window.rows = live("/orders", {}, { token: first, renew, onChange() {}, onState: (state) => states.push(state) });
    const refuse = () => Promise.reject(new Error("no more"));
    subscribe("/orders", {}, { token: first, renew: refuse, onFrame: (frame) => seen.push(frame.type), onState: (state) => (window.failed = state) });
  }, [first, second]);
  await page.waitForFunction(() => states.at(-1)?.status === "live");
  await page.waitForFunction(() => window.give && failed?.status === "failed");
  assert.equal(await page.evaluate(() => failed.error.message), "no more");
  await asRoot("PATCH", "/orders/1001", { quantity: 41 });
  const before = urls.length;
  await page.evaluate(() => give());
  await page.waitForFunction(() => rows.rows.find(({ id }) => id === "1001").quantity === 41);
  assert.deepEqual(await page.evaluate(() => asked), [[401, 4401]]);
  const paths = urls.slice(before).map((url) => new URL(url).pathname).filter((path) => path.startsWith("/orders"));
  assert.deepEqual(paths, ["/orders/events"], "the rows are not read again");
});

test("when other rules are loaded, a subscription fails, a live list is read again, and the page has the new rights", async () => {
  const ada = await user(token("Ada", "clerk"));
  await live(ada);
  await ada.page.evaluate(async (token) => {
    const { live, subscribe } = await import("/static/diorama.js");
    Object.assign(window, { events: [], rows: undefined });
    subscribe("/orders", {}, { token, onFrame() {}, onState: (state) => events.push(state) });
    window.rows = live("/orders", {}, { token, onChange() {}, onState: (state) => (window.state = state) });
  }, token("Ada", "clerk"));
  await ada.page.waitForFunction(() => events.at(-1)?.status === "live" && state.status === "live");
  const path = `${server.folder}/diorama.toml`;
  const text = readFileSync(path, "utf8");
  // A socket ends before the next frame.
  const reload = async (text, isTold) => {
    writeFileSync(path, text);
    server.process.kill("SIGHUP");
    let quantity = 0;
    await until("told", async () => {
      await asRoot("PATCH", "/orders/1015", { quantity: (quantity += 1) });
      return isTold();
    });
  };
  const wider = 'where = "customer=in.({claims.sub},Grace)"';
  await reload(text.replace(CLERK, CLERK.replace('where = "customer=eq.{claims.sub}"', wider).replace('"quantity", ', "")), () => ada.page.evaluate(() => events.at(-1).status === "failed"));
  const failed = await ada.page.evaluate(() => [events.at(-1).error].map(({ status, code, close }) => [status, code, close])[0]);
  assert.deepEqual(failed, [403, "forbidden", 4403]);
  await ada.page.waitForFunction(() => state.status === "live" && rows.rows.length === 4 && rows.rows.every((row) => !("quantity" in row)));
  await until("the rows of the new rule", async () => (await ids(ada)).join() === "1001,1002,1003,1015");
  assert.deepEqual(await ada.page.locator(".grid thead button").allTextContents(), ["id", "product_id", "customer", "status"]);
  await reload(text, async () => (await ids(ada)).join() === "1001,1015");
});

test("a session counts for a page that came without TLS from another host name", async () => {
  const open = await new Server((text) => text + CONFIG).start();
  await open.stop();
  open.listen = `0.0.0.0:${new URL(open.url).port}`;
  await open.start();
  const url = `http://bakery.test:${new URL(open.url).port}/`;
  const ada = await tab(await browser.newContext(), url);
  assert.equal(await ada.page.evaluate(() => isSecureContext), false);
  await signIn(ada.page, token("Ada", "clerk"));
  await ada.page.getByRole("link", { name: "orders" }).click();
  await live(ada);
  await ada.page.getByRole("link", { name: "1001" }).click();
  await ada.page.getByLabel("status").fill("by plain HTTP");
  await ada.page.getByRole("button", { name: "Save" }).click();
  await shows(ada, "confirmed");
  await ada.page.goto(`${url}docs`);
  await ada.page.locator("[id^=operations-orders-]").first().waitFor();
  await ada.page.goto(url);
  await ada.page.getByRole("button", { name: "Sign out" }).click();
  await dialog(ada).waitFor();
  await open.stop();
});

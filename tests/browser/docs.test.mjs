// The page /docs in Chromium: Swagger UI shows this server's operations, with nothing from elsewhere.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { accessible, launch, Server, shot, signIn } from "./harness.mjs";

const TOKEN = "a-token-of-16-bytes";
// Swagger UI puts a link into the button of each operation.
const EXCUSED = ["nested-interactive"];
let browser;
let server;

before(async () => {
  browser = await launch();
  const configure = (text) => text.replace("[server]", '[server]\nbase_path = "/api/v1"\nauth = { tokens = ["env:EXPLORER_TOKEN"] }');
  process.env.EXPLORER_TOKEN = TOKEN;
  server = await new Server(configure).start();
});
after(async () => {
  await browser?.close();
  await server?.stop();
});

test("the viewer lists and tries the operations of this server, and asks no other", async () => {
  const page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
  page.setDefaultTimeout(60_000);
  const complaints = [];
  const elsewhere = [];
  page.on("pageerror", (error) => complaints.push(error.stack));
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && !/401 \(Unauthorized\)/.test(message.text()) && complaints.push(message.text()));
  page.on("request", (request) => /^(data|blob):/.test(request.url()) || request.url().startsWith(server.url) || elsewhere.push(request.url()));

  const refused = await page.goto(`${server.url}/docs`);
  assert.equal(refused.status(), 401);
  await page.getByText("A key or token is required").waitFor();
  await page.getByRole("link", { name: "Diorama", exact: true }).click();
  await signIn(page, TOKEN);
  await page.getByRole("button", { name: "Sign out" }).waitFor();
  await page.getByRole("link", { name: "API", exact: true }).click();
  await page.locator("[id^=operations-products-]").first().waitFor();
  const document = await server.send("GET", "/openapi.json", undefined, { Authorization: `Bearer ${TOKEN}` });
  const methods = ["get", "post", "put", "patch", "delete", "head", "options"];
  const operations = Object.values(document.paths).flatMap((path) => Object.keys(path).filter((key) => methods.includes(key)));
  assert.ok(operations.length > 40, `${operations.length}`);
  await page.waitForFunction((count) => window.document.querySelectorAll(".opblock").length === count, operations.length);
  await shot(page, "docs");
  await accessible(page, EXCUSED);
  await page.emulateMedia({ colorScheme: "dark" });
  await shot(page, "docs-dark");
  await accessible(page, EXCUSED);
  await page.emulateMedia({ colorScheme: "light" });

  const paths = page.locator(".opblock-summary-path");
  assert.ok((await paths.allTextContents()).some((text) => text.replaceAll("\u200b", "") === "/products/{id}"));
  const list = page.locator(".opblock-get", { has: page.locator('[data-path="/products"]') }).first();
  await list.locator(".opblock-summary-control").click();
  await list.getByRole("button", { name: "Try it out" }).click();
  const answered = page.waitForResponse((response) => new URL(response.url()).pathname === "/api/v1/products");
  await list.getByRole("button", { name: "Execute" }).click();
  assert.equal((await answered).status(), 200);
  await list.getByText("Baguette").first().waitFor();
  await shot(page, "docs-tried");
  assert.deepEqual(elsewhere, []);
  assert.deepEqual(complaints, []);
  await page.close();
});

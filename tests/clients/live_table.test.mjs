// examples/live_table.html in a browser: whatever happens to rows and server, the page shows what the server has.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import test from "node:test";
import { chromium } from "playwright-core";
import { withDemo } from "./server.mjs";

await withDemo(test, "the live table", async (t, demo) => {
  const html = readFileSync(new URL("live_table.html", import.meta.url));
  const pages = createServer((_, response) => response.setHeader("content-type", "text/html").end(html));
  await new Promise((resolve) => pages.listen(0, "127.0.0.1", resolve));
  t.after(() => pages.close());
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ["--no-sandbox"] });
  t.after(() => browser.close());
  const page = await browser.newPage();
  const errors = [];
  page.on("pageerror", (error) => errors.push(error));
  await page.goto(`http://127.0.0.1:${pages.address().port}/?server=${demo.url}&dio=orders&filter=status=paid`);

  const send = async (method, path, row) => {
    const headers = { "content-type": "application/json" };
    const answer = await fetch(`${demo.url}/orders${path}`, { method, headers, body: row && JSON.stringify(row) });
    assert.ok(answer.ok, await answer.text());
  };
  const { columns } = await (await fetch(`${demo.url}/orders/_schema`)).json();
  // Waits until the page shows what the list has.
  const same = async () => {
    const rows = await (await fetch(`${demo.url}/orders?status=paid`)).json();
    const cells = rows.map((row) => columns.map(({ name }) => String(row[name] ?? "")).join("|")).sort();
    const shown = (expected) => {
      const rows = [...document.querySelectorAll("tbody tr")].map((row) => [...row.cells].map((cell) => cell.textContent).join("|"));
      return JSON.stringify(rows.sort()) === expected;
    };
    await page.waitForFunction(shown, JSON.stringify(cells), { timeout: 60_000 });
    return rows.length;
  };

  assert.equal(await same(), 12);
  await send("PATCH", "/1001", { price: 1, customer: "<b>Ada</b>" });
  assert.equal(await same(), 12);
  await send("PATCH", "/1002", { status: "ready" });
  assert.equal(await same(), 11);
  await send("POST", "/3001", { product_id: "rye", quantity: 1, price: 740, status: "paid" });
  await send("DELETE", "/1003");
  assert.equal(await same(), 11);
  await demo.stop();
  await page.waitForFunction(() => document.querySelector("[role=status]").textContent.includes("away"), null, { timeout: 60_000 });
  await demo.serve(new URL(demo.url).host);
  await send("PATCH", "/1004", { price: 2 });
  await same();
  assert.deepEqual(errors, []);
});

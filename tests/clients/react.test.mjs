// examples/react.html in a browser, with the React of npm: changes show, an edit is written, a refusal is said.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import test from "node:test";
import { chromium } from "playwright-core";
import { withDemo } from "./server.mjs";

const resolve = createRequire(import.meta.url).resolve;
const text = (name) => readFileSync(resolve(name), "utf8");

// React is published as CommonJS only; this makes modules of it, which share one React.
const PARTS = {
  react: "react/cjs/react.production.js",
  scheduler: "scheduler/cjs/scheduler.production.js",
  "react-dom": "react-dom/cjs/react-dom.production.js",
  "react-dom/client": "react-dom/cjs/react-dom-client.production.js",
};
const file = (path) => readFileSync(new URL(path.split("/").slice(1).join("/"), `file://${resolve(`${path.split("/")[0]}/package.json`)}`), "utf8");
const parts = Object.entries(PARTS).map(([name, path]) => `${JSON.stringify(name)}: (require, module, exports) => {${file(path)}\n}`);
const FILES = {
  "/react.js": `const parts = {${parts.join(",")}}, made = {};
    export function require(name) {
      if (!made[name]) { made[name] = { exports: {} }; parts[name](require, made[name], made[name].exports); }
      return made[name].exports;
    }
    export const { createElement, useEffect, useState } = require("react");`,
  "/client.js": `import { require } from "/react.js"; export const { createRoot } = require("react-dom/client");`,
};

await withDemo(test, "the page in React", async (t, demo) => {
  const html = text("./react.html").replace(/"https:[^"]*client"/, '"/client.js"').replace(/"https:[^"]*"/, '"/react.js"');
  assert.ok(!html.includes("https:"), "nothing is read from elsewhere");
  const pages = createServer(({ url }, response) => {
    const script = FILES[url];
    response.setHeader("content-type", script ? "text/javascript" : "text/html").end(script ?? html);
  });
  await new Promise((ready) => pages.listen(0, "127.0.0.1", ready));
  t.after(() => pages.close());
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ["--no-sandbox"] });
  t.after(() => browser.close());
  const page = await browser.newPage();
  page.setDefaultTimeout(60_000);
  const errors = [];
  page.on("pageerror", (error) => errors.push(error.stack));
  page.on("console", (message) => message.type() === "error" && !/favicon|status of 422/.test(message.text()) && errors.push(message.text()));
  await page.goto(`http://127.0.0.1:${pages.address().port}/?server=${demo.url}`);

  const list = async () => (await fetch(`${demo.url}/products?order=price.desc&limit=10`)).json();
  // Waits until the page shows what the list has.
  const same = async () => {
    const expected = (await list()).map(({ name, price }) => `${name} ${price}`).join("\n");
    const shown = (expected) => [...document.querySelectorAll("tr")]
      .map((row) => `${row.cells[0].textContent} ${row.querySelector("input").value}`).join("\n") === expected;
    await page.waitForFunction(shown, expected);
  };
  await same();
  await page.getByText("live", { exact: true }).waitFor();

  const patched = await fetch(`${demo.url}/products/rye`, {
    method: "PATCH", headers: { "content-type": "application/json" }, body: '{"price":9000}',
  });
  assert.ok(patched.ok);
  await same();
  assert.equal((await list())[0].id, "rye");

  const price = page.getByLabel("price of Dark Rye");
  await price.fill("9001");
  await price.press("Enter");
  await page.waitForFunction(async (url) => (await (await fetch(url)).json()).price === 9001, `${demo.url}/products/rye`);
  await same();
  await price.fill("a lot");
  await price.press("Enter");
  await page.getByRole("alert").waitFor();
  await same();
  assert.deepEqual(errors, []);
});

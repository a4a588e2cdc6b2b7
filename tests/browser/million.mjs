// A million rows in the explorer: the first paint, the frames while it is scrolled, and whether the rows in sight are the right ones.
// Prints what it measures; only the rows are asserted. `run.sh PROGRAM million`, of a release build.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createWriteStream } from "node:fs";
import { once } from "node:events";
import { finished } from "node:stream/promises";
import { launch, said, shot, until } from "./harness.mjs";

const { DIORAMA, WORK } = process.env;
const ROWS = 1_000_000;
const name = (at) => `thing ${(at * 7_919) % ROWS}`;

const csv = createWriteStream(`${WORK}/million.csv`);
csv.write("id,name,price,note\n");
for (let at = 0; at < ROWS; at += 1) {
  if (!csv.write(`r${at},${name(at)},${at % 1_000},row number ${at} of many\n`)) await once(csv, "drain");
}
csv.end();
await finished(csv);

const options = ["serve", "million.csv", "--listen", "127.0.0.1:0", "--cache", "memory"];
const server = spawn(DIORAMA, options, { cwd: WORK, stdio: ["ignore", "pipe", "inherit"], env: { ...process.env, DIORAMA_LOG: "error" } });
process.on("exit", () => server.kill("SIGKILL"));
const url = (await said(server, /^ready/m)).match(/^listening on (.*)$/m)[1];
const browser = await launch();

/** How long after the answer something was painted first. */
const painted = (page) => until("painted", () => page.evaluate(() => {
  const paint = performance.getEntriesByName("first-contentful-paint")[0];
  return paint && paint.startTime - performance.getEntriesByType("navigation")[0].responseStart;
}));
const paints = { "in a new process of the browser": [], "in a running one": [], "of one paragraph, in a new one": [] };
for (let time = 0; time < 9; time += 1) {
  const page = await browser.newPage();
  await page.goto(`${url}/#/million`);
  paints["in a new process of the browser"].push(await painted(page));
  await page.reload();
  paints["in a running one"].push(await painted(page));
  await page.close();
  const plain = await browser.newPage();
  await plain.route("**/plain", (route) => route.fulfill({ contentType: "text/html", body: "<!doctype html><p>A paragraph" }));
  await plain.goto(`${url}/plain`);
  paints["of one paragraph, in a new one"].push(await painted(plain));
  await plain.close();
}
for (const [where, times] of Object.entries(paints)) {
  const [least, median, most] = [0, 4, 8].map((at) => times.toSorted((a, b) => a - b)[at].toFixed(0));
  console.log(`first paint after the answer ${where}: ${median} (${least}..${most}) ms`);
}

const page = await browser.newPage({ viewport: { width: 1280, height: 800 } });
await page.goto(`${url}/#/million`);
await page.getByText("1,000,000").or(page.getByText("1\u202f000\u202f000")).first().waitFor({ timeout: 60_000 });
await page.locator(".viewport tbody th").first().waitFor();

/** The rows in sight, each with its place and cells; none if there is a gap among them. */
const inSight = () => page.evaluate(() => {
  const view = document.querySelector(".viewport");
  const { top, bottom } = view.getBoundingClientRect();
  const head = view.querySelector("thead").getBoundingClientRect().bottom;
  const rows = [...view.querySelectorAll("tbody tr[aria-rowindex]")].map((row) => ({ row, box: row.getBoundingClientRect() }));
  const seen = rows.filter(({ box }) => box.bottom > Math.max(top, head) + 1 && box.top < bottom - 1);
  const covers = seen.length > 0 && seen[0].box.top <= Math.max(top, head) + 1 && seen.at(-1).box.bottom >= Math.min(bottom, innerHeight) - 32 - 16;
  return covers ? seen.map(({ row }) => ({ at: row.ariaRowIndex - 2, cells: [...row.cells].map((cell) => cell.textContent) })) : [];
});
async function right(what) {
  const rows = await until(`${what}: the view is full of rows`, async () => {
    const rows = await inSight();
    return rows.length > 5 && rows;
  });
  rows.forEach(({ at, cells }, index) => {
    assert.equal(at, rows[0].at + index, what);
    assert.deepEqual(cells, [`r${at}`, name(at), `${at % 1_000}`, `row number ${at} of many`], what);
  });
  return rows;
}
assert.equal((await right("the beginning"))[0].at, 0);

/** Frames while `act` runs. */
async function frames(what, act) {
  await page.evaluate(() => {
    window.frames_ = [];
    window.stop_ = false;
    let before = performance.now();
    const note = (now) => {
      window.frames_.push(now - before);
      before = now;
      if (!window.stop_) requestAnimationFrame(note);
    };
    requestAnimationFrame(note);
  });
  await act();
  const took = await page.evaluate(() => {
    window.stop_ = true;
    return window.frames_.slice(1);
  });
  took.sort((a, b) => a - b);
  const at = (part) => took[Math.min(took.length - 1, Math.floor(took.length * part))]?.toFixed(1);
  console.log(`${what}: ${took.length} frames, median ${at(0.5)} ms, p95 ${at(0.95)} ms, longest ${at(1)} ms`);
}

await page.mouse.move(640, 500);
await frames("wheel, 300 notches of 120 pixels", async () => {
  for (let notch = 0; notch < 300; notch += 1) await page.mouse.wheel(0, 120);
});
await right("after the wheel");
await page.locator(".viewport").focus();
await frames("Page Down, 100 times", async () => {
  for (let time = 0; time < 100; time += 1) await page.keyboard.press("PageDown");
});
await right("after Page Down");
await frames("End", () => page.keyboard.press("End"));
await until("at the end", async () => (await inSight()).at(-1)?.at === ROWS - 1);
await right("the end");
await shot(page, "million-end");

let seed = 42;
const random = () => (seed = (seed * 48_271) % 2_147_483_647) / 2_147_483_647;
const seen = [];
await frames("30 jumps of the scroll bar", async () => {
  for (let time = 0; time < 30; time += 1) {
    const part = random();
    await page.evaluate((part) => {
      const view = document.querySelector(".viewport");
      view.scrollTop = part * (view.scrollHeight - view.clientHeight);
    }, part);
    const [first] = await until("where it was moved", async () => {
      const rows = await inSight();
      return Math.abs(rows[0]?.at - part * ROWS) < ROWS / 1_000 && rows;
    });
    await right(`part ${part}`);
    seen.push(first.at);
  }
});
assert.equal(new Set(seen).size, 30);
await page.keyboard.press("Home");
await until("at the beginning", async () => (await right("the beginning again"))[0].at === 0);
console.log("the rows in sight were the right ones at the beginning, at the end and at 30 places between");
await browser.close();
server.kill();

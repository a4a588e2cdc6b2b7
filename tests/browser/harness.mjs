// A server of the demo, a browser, and waiting for what must become true.

import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { after, afterEach, before, beforeEach } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { chromium } from "playwright-core";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const { CHROMIUM, DIORAMA, SHOTS, WORK } = process.env;

/** Servers that a test which failed has left. */
const running = new Set();
process.on("exit", () => running.forEach((each) => each.kill("SIGKILL")));

/** The demo, as a process. `configure` may change its configuration. */
export class Server {
  constructor(configure = (text) => text) {
    this.folder = mkdtempSync(`${WORK}/demo-`);
    this.configure = configure;
    this.listen = "127.0.0.1:0";
    this.files = {};
    /** What is made in its folder before it starts. */
    this.prepare = (folder) => folder;
    /** What it prints when it can be used. */
    this.begun = /^ready/m;
  }

  async start() {
    const options = ["demo", "--dir", this.folder, "--listen", this.listen];
    if (this.listen.endsWith(":0")) {
      // Unpacks the files, which are then changed.
      const first = spawn(DIORAMA, options, { stdio: ["ignore", "pipe", "ignore"] });
      await said(first, /^ready/m);
      first.kill();
      await once(first, "exit");
      const path = `${this.folder}/diorama.toml`;
      // A refresh in the midst of a test would have lists read again.
      const text = readFileSync(path, "utf8").replaceAll(/^refresh_every = .*$/gm, 'refresh_every = "1h"');
      writeFileSync(path, this.configure(text));
      for (const [name, text] of Object.entries(this.files)) writeFileSync(`${this.folder}/${name}`, text);
      this.prepare(this.folder);
    }
    this.process = spawn(DIORAMA, options, { stdio: ["ignore", "pipe", "inherit"], env: { ...process.env, DIORAMA_LOG: "error" } });
    running.add(this.process);
    const text = await said(this.process, this.begun);
    // It keeps no test waiting.
    this.process.unref();
    this.process.stdout.unref();
    this.url ??= text.match(/^listening on (.*)$/m)[1];
    this.listen = new URL(this.url).host;
    return this;
  }

  /** Ends the process; `SIGKILL` as a crash would. */
  async stop(signal = "SIGTERM") {
    this.process.ref();
    const ended = once(this.process, "exit");
    this.process.kill(signal);
    await ended;
    running.delete(this.process);
  }

  async restart(signal) {
    await this.stop(signal);
    await this.start();
  }

  async send(method, path, body, headers = {}) {
    const type = body === undefined ? {} : { "Content-Type": "application/json" };
    const sent = body === undefined ? undefined : JSON.stringify(body);
    const response = await fetch(this.url + path, { method, headers: { ...type, ...headers }, body: sent });
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
    return text && JSON.parse(text);
  }
}

export async function said(process, pattern) {
  let text = "";
  for await (const piece of process.stdout) {
    text += piece;
    if (pattern.test(text)) {
      process.stdout.resume();
      return text;
    }
  }
  throw new Error(`the server ended: ${text}`);
}

/**
 * Runs statements on a SQLite file, each an SQL text with its values: a blob is `{ blob: HEX }`, an integer beyond 2^53 a BigInt. Gives the
 * rows of the last one; every cell with its type and exact bytes.
 */
export function sqlite(path, statements) {
  const script = `
import json, sqlite3, sys
path, statements = json.load(sys.stdin)
value = lambda v: bytes.fromhex(v["blob"]) if isinstance(v, dict) and "blob" in v else int(v["int"]) if isinstance(v, dict) else v
exact = lambda v: ["null"] if v is None else ["blob", v.hex()] if isinstance(v, bytes) else ["real", v.hex()] if isinstance(v, float) else ["integer", str(v)] if isinstance(v, int) else ["text", v]
with sqlite3.connect(path, timeout=30) as db:
    for sql, values in statements:
        rows = db.execute(sql, [value(v) for v in values]).fetchall()
print(json.dumps([[exact(v) for v in row] for row in rows]))
`;
  const input = JSON.stringify([path, statements.map(([sql, values = []]) => [sql, values])], (_, value) => (typeof value === "bigint" ? { int: `${value}` } : value));
  const done = spawnSync("python3", ["-c", script], { input, encoding: "utf8", maxBuffer: 64 << 20 });
  if (done.status !== 0) throw new Error(done.stderr);
  return JSON.parse(done.stdout);
}

export const launch = (...args) => chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox", ...args] });

/** Gives a key or token to the dialog of the explorer. */
export async function signIn(page, token) {
  await page.getByLabel("Key or token").fill(token);
  await page.getByRole("dialog").getByRole("button", { name: "Sign in" }).click();
}

/**
 * A browser and a server for all tests of a file, and a page for each, in which no script fails and no policy is broken. `server` makes the
 * server, not started yet. What it gives has them as `browser`, `server` and `page` while a test runs.
 */
export function suite(server, timeout = 60_000) {
  const own = {};
  let complaints;
  before(async () => {
    own.browser = await launch();
    own.server = await server().start();
  });
  after(async () => {
    await own.browser?.close();
    await own.server?.stop();
  });
  beforeEach(async () => {
    own.page = await own.browser.newPage({ viewport: { width: 1280, height: 800 } });
    own.page.setDefaultTimeout(timeout);
    complaints = [];
    own.page.on("pageerror", (error) => complaints.push(error.stack));
    own.page.on("console", (message) => /Content Security Policy/.test(message.text()) && complaints.push(message.text()));
  });
  afterEach(async () => {
    await own.page.close();
    assert.deepEqual(complaints, []);
  });
  return own;
}

/** Waits until `look` gives something true. */
export async function until(what, look, seconds = 60) {
  const end = Date.now() + seconds * 1000;
  for (let last; ; ) {
    try {
      last = await look();
      if (last) return last;
    } catch (error) {
      last = error;
    }
    if (Date.now() > end) throw new Error(`not ${what}: ${last?.stack ?? JSON.stringify(last)}`);
    await sleep(50);
  }
}

export const shot = (page, name) => page.screenshot({ path: `${SHOTS}/${name}.png` });

/** Axe has nothing serious to say about what is shown, but for the rules that are `excused`. */
export async function accessible(page, excused = []) {
  await page.evaluate(AXE);
  // A color in the midst of a transition is none that anybody reads.
  await page.evaluate(() => Promise.allSettled(document.getAnimations().filter((own) => own instanceof CSSTransition).map((own) => own.finished)));
  const violations = await page.evaluate(async () => (await axe.run()).violations);
  const found = violations.filter(({ id, impact }) => ["serious", "critical"].includes(impact) && !excused.includes(id));
  assert.deepEqual(found.map(({ id, nodes }) => [id, nodes.map(({ html, any }) => [html, any[0]?.message])]), []);
}

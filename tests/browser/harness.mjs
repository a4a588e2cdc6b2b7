// A server of the demo, a browser, and waiting for what must become true.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { setTimeout as sleep } from "node:timers/promises";
import { chromium } from "playwright-core";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const { CHROMIUM, DIORAMA, SHOTS, WORK } = process.env;

/** The demo, as a process. `configure` may change its configuration. */
export class Server {
  constructor(configure = (text) => text) {
    this.folder = mkdtempSync(`${WORK}/demo-`);
    this.configure = configure;
    this.listen = "127.0.0.1:0";
    this.files = {};
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
    }
    this.process = spawn(DIORAMA, options, { stdio: ["ignore", "pipe", "inherit"], env: { ...process.env, DIORAMA_LOG: "error" } });
    const text = await said(this.process, /^ready/m);
    this.url ??= text.match(/^listening on (.*)$/m)[1];
    this.listen = new URL(this.url).host;
    return this;
  }

  /** Ends the process; `SIGKILL` as a crash would. */
  async stop(signal = "SIGTERM") {
    const ended = once(this.process, "exit");
    this.process.kill(signal);
    await ended;
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

export const launch = () => chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox"] });

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
  const violations = await page.evaluate(async () => (await axe.run()).violations);
  const found = violations.filter(({ id, impact }) => ["serious", "critical"].includes(impact) && !excused.includes(id));
  assert.deepEqual(found.map(({ id, nodes }) => [id, nodes.map(({ html, any }) => [html, any[0]?.message])]), []);
}

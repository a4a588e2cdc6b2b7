// Servers as child processes, and Diorama in front of them.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

// The end of this process ends its servers.
const children = new Set();
process.on("exit", () => children.forEach((child) => child.kill("SIGKILL")));
process.once("SIGTERM", () => process.exit(1));

export const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

// Waits until `check` returns something true, which is returned. Fails with the last value or error after `seconds`.
export async function until(what, check, seconds = 30) {
  const end = Date.now() + seconds * 1000;
  let last;
  while (Date.now() < end) {
    try {
      last = await check();
      if (last) return last;
    } catch (error) {
      last = error;
    }
    await pause(50);
  }
  throw new Error(`${what}: not within ${seconds} s; last: ${last?.stack ?? JSON.stringify(last)}`);
}

export async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

// An empty folder that is removed after the test.
export function folder(t) {
  const path = mkdtempSync(join(tmpdir(), "diorama-apis-"));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

// A process that ends with the test.
export class Process {
  constructor(t, program, args, options = {}) {
    this.said = "";
    this.child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"], ...options });
    children.add(this.child);
    for (const stream of [this.child.stdout, this.child.stderr]) {
      stream.setEncoding("utf8").on("data", (text) => (this.said += text));
    }
    this.ended = new Promise((resolve) => {
      this.child.once("error", (error) => {
        this.said += error;
        resolve();
      });
      this.child.once("close", resolve);
    }).then(() => (this.isRunning = false));
    this.isRunning = true;
    t.after(() => this.stop());
  }

  async ready(what, check) {
    await until(`${what} is ready`, async () => {
      if (!this.isRunning) return true;
      return check();
    });
    if (!this.isRunning) throw new Error(`${what} ended: ${this.said}`);
  }

  async stop(signal = "SIGTERM") {
    if (this.isRunning) this.child.kill(signal);
    await this.ended;
    children.delete(this.child);
  }
}

// A server that answers at `path` of a free port.
export async function serve(t, path, program, args, options) {
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const server = new Process(t, program, args(port), options);
  await server.ready(program, async () => (await fetch(url + path)).status < 500);
  return url;
}

export async function json(url, init = {}) {
  const { body, headers, ...others } = init;
  const sent = body === undefined ? {} : { body: JSON.stringify(body) };
  const type = body === undefined ? {} : { "content-type": "application/json" };
  const answer = await fetch(url, { ...others, ...sent, headers: { ...type, ...headers } });
  const text = await answer.text();
  let value;
  try {
    value = text ? JSON.parse(text) : undefined;
  } catch {
    value = text;
  }
  return { status: answer.status, headers: answer.headers, value };
}

// The body of an answer that must be a success.
export async function get(url, init) {
  const { status, value } = await json(url, init);
  if (status >= 300) throw new Error(`${init?.method ?? "GET"} ${url}: ${status} ${JSON.stringify(value)}`);
  return value;
}

// Output of a command of Diorama, which must succeed.
export async function command(t, ...args) {
  const run = new Process(t, process.env.DIORAMA, args);
  await run.ended;
  if (run.child.exitCode !== 0) throw new Error(`diorama ${args.join(" ")}: ${run.said}`);
  return run.said;
}

// A server with a configuration. `prepare` puts files into its folder; `ready` is what it says once it has started.
export class Diorama {
  static async start(t, config, { env = {}, prepare = () => {}, ready = /^ready/m } = {}) {
    const diorama = new Diorama();
    diorama.dir = folder(t);
    diorama.env = { ...process.env, ...env };
    writeFileSync(join(diorama.dir, "diorama.toml"), config);
    prepare(diorama.dir);
    await diorama.serve(t, ready);
    return diorama;
  }

  async serve(t, ready = /^ready/m, address = "127.0.0.1:0") {
    const args = ["serve", "--listen", address];
    this.process = new Process(t, process.env.DIORAMA, args, { cwd: this.dir, env: this.env });
    await this.process.ready("diorama", () => ready.test(this.process.said));
    this.url = this.process.said.match(/^listening on (.*)$/m)[1];
  }

  // Ends the process in the middle of what it does, and starts it again at the same address.
  async crash(t) {
    const address = new URL(this.url).host;
    await this.process.stop("SIGKILL");
    await this.serve(t, undefined, address);
  }

  list(query = "limit=10000") {
    return get(`${this.url}/products?${query}`);
  }

  write(method, id, body, headers = {}) {
    return get(`${this.url}/products${id === undefined ? "" : `/${id}`}`, { method, body, headers });
  }

  refresh() {
    return get(`${this.url}/products/_refresh`, { method: "POST" });
  }

  // Waits until no write waits, and returns all operations.
  settled(seconds = 60) {
    return until(
      "no write waits",
      async () => {
        const all = await get(`${this.url}/operations?limit=1000`);
        return all.every(({ state }) => ["applied", "failed", "parked"].includes(state)) && all;
      },
      seconds,
    );
  }
}

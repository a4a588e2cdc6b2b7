// A demo server in a folder of its own, which can be stopped and started again at the same address.
import { spawn } from "node:child_process";
import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

// Whatever ends this process ends its servers.
const children = new Set();
process.on("exit", () => children.forEach((child) => child.kill("SIGKILL")));
process.once("SIGTERM", () => process.exit(1));

export class Demo {
  static async start() {
    const demo = new Demo();
    demo.dir = mkdtempSync(join(tmpdir(), "diorama-clients-"));
    cpSync(new URL("demo", import.meta.url), demo.dir, { recursive: true });
    await demo.serve("127.0.0.1:0");
    return demo;
  }

  async serve(address) {
    const stdio = ["ignore", "pipe", "inherit"];
    this.child = spawn(process.env.DIORAMA, ["demo", "--dir", this.dir, "--listen", address], { stdio });
    const { child } = this;
    children.add(child);
    this.ended = new Promise((resolve) => child.once("exit", resolve)).then(() => children.delete(child));
    let said = "";
    await new Promise((resolve, reject) => {
      child.stdout.setEncoding("utf8").on("data", (text) => {
        said += text;
        if (/^ready/m.test(said)) resolve();
      });
      child.once("error", reject);
      child.once("exit", (code, signal) => reject(new Error(`the server ended (${code ?? signal}) before it was ready: ${said}`)));
    });
    this.url = said.match(/^listening on (.*)$/m)[1];
  }

  async stop() {
    this.child.kill("SIGTERM");
    await this.ended;
  }

  async restart() {
    await this.stop();
    await this.serve(new URL(this.url).host);
  }

  async close() {
    await this.stop();
    rmSync(this.dir, { recursive: true, force: true });
  }
}

// Runs `tests` against a demo of their own, which ends whatever happens.
export async function withDemo(test, name, tests) {
  await test(name, async (t) => {
    const demo = await Demo.start();
    t.after(() => demo.close());
    await tests(t, demo);
  });
}

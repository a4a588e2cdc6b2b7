// A demo server in a folder of its own, which can be stopped and started again at the same address.
import { spawn } from "node:child_process";
import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

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
    for await (const line of createInterface({ input: this.child.stdout })) {
      if (line.startsWith("listening on ")) this.url = line.slice("listening on ".length);
      if (line.startsWith("ready")) return;
    }
    throw new Error("the server ended before it was ready");
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

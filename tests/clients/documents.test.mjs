// The documents that the server makes of itself, judged by the tools that read them.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import test from "node:test";
import { promisify } from "node:util";
import { Parser } from "@asyncapi/parser";
import Ajv from "ajv";
import createClient from "openapi-fetch";
import { withDemo } from "./server.mjs";

const run = promisify(execFile);
const here = new URL(".", import.meta.url);
const tool = (path) => new URL(`../node_modules/${path}`, here).pathname;

async function node(...command) {
  const output = await run(process.execPath, command, { cwd: here.pathname }).catch((error) => error);
  assert.ok(!(output instanceof Error), `${command.join(" ")}\n${output.stdout}\n${output.stderr}`);
  return output.stdout;
}

await withDemo(test, "the OpenAPI document", async (t, demo) => {
  writeFileSync(new URL("openapi.json", here), await (await fetch(`${demo.url}/openapi.json`)).text());

  await t.test("@redocly/cli finds no error", async () => {
    await node(tool("@redocly/cli/bin/cli.js"), "lint", "openapi.json", "--extends=spec", "--format=stylish");
  });

  await t.test("openapi-typescript and openapi-fetch: a client that tsc --strict accepts, and one that it does not", async () => {
    await node(tool("openapi-typescript/bin/cli.js"), "openapi.json", "--output", "typed/api.ts");
    await node(tool("typescript/bin/tsc"), "--project", "typed");
  });

  await t.test("openapi-fetch: the same client works", async () => {
    const { shop } = await import(new URL("typed/out/shop.js", here));
    await shop(createClient({ baseUrl: demo.url }), assert);
  });
});

test("the JSON Schema of diorama.toml is one", () => {
  const fits = new Ajv({ strict: true }).compile(JSON.parse(readFileSync(new URL("diorama.schema.json", here))));
  const dio = { shop: { source: { csv: "shop.csv" } } };
  assert.ok(fits({ server: { auth: "none" }, dio }), JSON.stringify(fits.errors));
  assert.ok(!fits({ server: { atuh: "none" }, dio }));
});

await withDemo(test, "the AsyncAPI document", async (t, demo) => {
  const answer = await fetch(`${demo.url}/asyncapi.json`);
  if (answer.status === 404) return t.skip("this server has none");
  const { document, diagnostics } = await new Parser().parse(await answer.text());
  const errors = diagnostics.filter((diagnostic) => diagnostic.severity === 0);
  assert.deepEqual(errors, []);
  assert.ok(document);
});

// Datasette over a SQLite file: pages by cursor, single rows and writes below other paths, a token.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { test } from "node:test";
import { bothWays, products, recipe, tried } from "./common.mjs";
import { command, Diorama, folder, get, serve } from "./harness.mjs";

const MAKE = `
import json, sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute("create table products (id integer primary key, name text, price integer)")
db.executemany("insert into products values (:id, :name, :price)", json.loads(sys.argv[2]))
db.commit()
`;

async function datasette(t, count) {
  const dir = folder(t);
  const file = join(dir, "shop.db");
  execFileSync(process.env.PYTHON, ["-c", MAKE, file, JSON.stringify(products(count))]);
  const args = (port) => ["serve", file, "--port", String(port), "--root", "--secret", "s3cret", "--setting", "default_page_size", "40"];
  const origin = await serve(t, "/-/versions.json", process.env.DATASETTE, args, { cwd: dir });
  const token = execFileSync(process.env.DATASETTE, ["create-token", "root", "--secret", "s3cret"], { encoding: "utf8" }).trim();
  const headers = { authorization: `Bearer ${token}` };
  const table = `${origin}/shop/products`;
  const write = (path, body) => get(`${table}${path}`, { method: "POST", body, headers });
  return {
    token,
    url: `${table}.json?_shape=objects`,
    rows: () => get(`${table}.json?_shape=array&_size=max`, { headers }),
    add: (row) => write("/-/insert", { row }),
    change: (id, update) => write(`/${id}/-/update`, { update }),
    remove: (id) => write(`/${id}/-/delete`, {}),
  };
}

const WRITES = `write.http = { create = "POST //shop/products/-/insert", create_body = { row = "{row}", return = true },
  patch = "POST //shop/products/{id}/-/update", body = { update = "{row}", return = true }, delete = "POST //shop/products/{id}/-/delete" }`;

test("Datasette", async (t) => {
  const api = await datasette(t, 130);
  const args = ["--header", `authorization: Bearer ${api.token}`];
  const source = ['one = "//shop/products/{id}.json?_shape=objects"', 'row = "/rows/0"'];
  const { found, config } = await tried(t, api.url, { resource: [WRITES], source, args });
  assert.match(found, /the second page has other rows/);
  assert.match(found, /^rows = "\/rows"$/m);
  assert.match(found, /^# secrets are not printed: set TOKEN in the environment$/m);
  assert.ok(!found.includes(api.token), "a secret is in what is printed");
  await bothWays(t, config, api, { TOKEN: api.token });
});

test("the recipe of the page", async (t) => {
  const api = await datasette(t, 130);
  await bothWays(t, recipe("Datasette", api.url), api, { TOKEN: api.token });
});

test("its pages are found without any key", async (t) => {
  const api = await datasette(t, 130);
  for (const shape of ["objects", "array"]) {
    const url = api.url.replace("objects", shape);
    const diorama = await Diorama.start(t, `[dio.products]\nsource = { http = "${url}" }`);
    assert.equal((await diorama.list()).length, 130, shape);
  }
  const named = await command(t, "try", api.url);
  assert.match(named, /^\[dio\.products\.source\]$/m);
});

// Another Diorama as the API: its lists have a Link header, and repeated writes are recognized by their Idempotency-Key.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { test } from "node:test";
import { bothWays, products, recipe, tried } from "./common.mjs";
import { Diorama, get } from "./harness.mjs";

const MAKE = `
import json, sqlite3, sys
db = sqlite3.connect("shop.db")
db.execute("create table products (id text primary key, name text, price integer)")
db.executemany("insert into products values (:id, :name, :price)", json.loads(sys.argv[1]))
db.commit()
`;

const rows = products(250, (n) => `p${String(n).padStart(3, "0")}`);

async function upstream(t) {
  const config = '[dio.products]\nsource = { sqlite = "shop.db", table = "products" }\nack = "applied"';
  const prepare = (dir) => execFileSync(process.env.PYTHON, ["-c", MAKE, JSON.stringify(rows)], { cwd: dir });
  const { url: origin } = await Diorama.start(t, config, { prepare });
  const url = `${origin}/products`;
  return {
    url,
    rows: () => get(`${url}?limit=10000`),
    add: (body) => get(url, { method: "POST", body }),
    change: (id, body) => get(`${url}/${id}`, { method: "PATCH", body }),
    remove: (id) => get(`${url}/${id}`, { method: "DELETE" }),
  };
}

test("a Diorama in front of a Diorama", async (t) => {
  const api = await upstream(t);
  const resource = ['write.http = { create = "POST /", patch = "PATCH /{id}", delete = "DELETE /{id}" }'];
  const { found, config } = await tried(t, `${api.url}?limit=40`, { resource });
  assert.match(found, /the second page has other rows/);
  assert.match(found, /^page = \{ header_link = "next" \}$/m);
  await bothWays(t, config, api);
});

test("the recipe of the page", async (t) => {
  const api = await upstream(t);
  await bothWays(t, recipe("Another Diorama", api.url), api);
});

test("its pages are followed without any key", async (t) => {
  const api = await upstream(t);
  const diorama = await Diorama.start(t, `[dio.products]\nsource = { http = "${api.url}" }`);
  assert.equal((await diorama.list()).length, rows.length);
});

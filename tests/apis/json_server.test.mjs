// json-server: version 1 numbers its pages in the body, version 0.17 has a Link header.
import assert from "node:assert/strict";
import { test } from "node:test";
import { bothWays, recipe, tried } from "./common.mjs";
import { Diorama } from "./harness.mjs";
import { jsonServer } from "./json_server.mjs";

const COUNT = 125;
const WRITES = 'write.http = { create = "POST /", patch = "PATCH /{id}", delete = "DELETE /{id}" }';

for (const [version, query] of [
  [1, "?_page=1&_per_page=30"],
  [0, "?_page=1&_limit=30"],
]) {
  test(`json-server ${version} with pages`, async (t) => {
    const api = await jsonServer(t, version, COUNT);
    const { found, config } = await tried(t, api.url + query, { resource: [WRITES] });
    assert.match(found, /the second page has other rows/);
    assert.match(found, /^one = "\/\{id\}"$/m);
    await bothWays(t, config, api);
  });

  test(`json-server ${version} as a whole`, async (t) => {
    const api = await jsonServer(t, version, COUNT);
    const { config } = await tried(t, api.url, { resource: [WRITES] });
    const diorama = await Diorama.start(t, config);
    assert.deepEqual((await diorama.list()).length, COUNT);
  });
}

test("the recipe of the page", async (t) => {
  const api = await jsonServer(t, 1, COUNT);
  await bothWays(t, recipe("json-server", api.url), api);
});

test("pages that are not configured are not taken for the whole list", async (t) => {
  const api = await jsonServer(t, 1, COUNT);
  const config = `[dio.products]\nsource = { http = "${api.url}?_page=1&_per_page=30" }`;
  await Diorama.start(t, config, { ready: /cannot be read.*so that there are more pages: set page in source/ });
});

test("numbered pages end where the API answers with its last page again", async (t) => {
  const api = await jsonServer(t, 1, COUNT);
  const page = 'rows = "/data", page = { page_number = "_page", max = 20 }';
  const diorama = await Diorama.start(t, `[dio.products]\nsource = { http = "${api.url}?_page=1&_per_page=30", ${page} }`);
  assert.equal((await diorama.list()).length, COUNT);
});

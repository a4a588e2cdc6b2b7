// An API that is out of order while Diorama is started again: reads are answered from the copy.
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { test } from "node:test";
import { products } from "./common.mjs";
import { Diorama } from "./harness.mjs";

const rows = products(20);
const ANSWERS = {
  "no connection": (response) => response.socket.destroy(),
  "a page for people": (response) => response.end("<html>We are back soon"),
  "an object without rows": (response) => response.end('{"message":"maintenance"}'),
  "rows without ids": (response) => response.end('[{"message":"maintenance"},{"message":"maintenance"}]'),
  "an array of texts": (response) => response.end('["maintenance"]'),
};
for (const status of [401, 403, 404, 429, 500, 503]) {
  ANSWERS[`status ${status}`] = (response) => response.writeHead(status).end('{"message":"not now"}');
}

test("a restart while the API is out of order serves the copy", async (t) => {
  let answer = (response) => response.end(JSON.stringify(rows));
  const api = createServer((request, response) => answer(response.setHeader("content-type", "application/json")));
  await once(api.listen(0, "127.0.0.1"), "listening");
  t.after(() => api.close(() => {}) && api.closeAllConnections());
  const url = `http://127.0.0.1:${api.address().port}/products`;
  const diorama = await Diorama.start(t, `[dio.products]\nsource = { http = "${url}" }`);
  for (const [name, wrong] of Object.entries(ANSWERS)) {
    await t.test(name, async (t) => {
      await diorama.process.stop();
      answer = wrong;
      await diorama.serve(t);
      assert.deepEqual(await diorama.list("order=id&limit=1000"), rows);
    });
  }
});

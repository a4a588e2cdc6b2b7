// An API that redirects its list, as Django does from a URL without a slash at its end.
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { test } from "node:test";
import { products } from "./common.mjs";
import { Diorama } from "./harness.mjs";

test("each redirect is a request within the rate limit, and none leads to another origin", async (t) => {
  const requests = [];
  const other = createServer((request, response) => response.end("[]"));
  const api = createServer((request, response) => {
    requests.push({ url: request.url, at: performance.now() });
    if (request.url === "/products") return response.writeHead(301, { location: "/products/" }).end();
    if (request.url === "/away") return response.writeHead(302, { location: `http://127.0.0.1:${other.address().port}/` }).end();
    response.setHeader("content-type", "application/json").end(JSON.stringify(products(20)));
  });
  for (const server of [api, other]) {
    await once(server.listen(0, "127.0.0.1"), "listening");
    t.after(() => server.close(() => {}) && server.closeAllConnections());
  }
  const origin = `http://127.0.0.1:${api.address().port}`;
  const config = (path) => `[dio.products]\nsource = { http = "${origin}${path}", rate = { per_second = 5, burst = 1 } }`;
  const diorama = await Diorama.start(t, config("/products"));
  await diorama.refresh();
  assert.equal((await diorama.list()).length, 20);
  assert.equal(requests.filter(({ url }) => url === "/products/").length, requests.length / 2);
  const gaps = requests.slice(1).map(({ at }, before) => at - requests[before].at);
  assert.deepEqual(gaps.filter((gap) => gap < 199), []);

  let asked = false;
  other.on("request", () => (asked = true));
  await assert.rejects(Diorama.start(t, config("/away")), /which is not followed: set the URL to it/);
  assert.ok(!asked, "a redirect to another origin was followed");
});

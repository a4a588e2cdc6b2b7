// nginx with limit_req in front of json-server: a list of many pages and a burst of writes stay within the limit.
import assert from "node:assert/strict";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { products } from "./common.mjs";
import { Diorama, folder, get, serve } from "./harness.mjs";
import { jsonServer } from "./json_server.mjs";

const ROWS = 30;
const PAGE = 3;

async function limited(t, burst) {
  const api = await jsonServer(t, 0, ROWS);
  const dir = folder(t);
  mkdirSync(join(dir, "tmp"));
  const log = join(dir, "access.log");
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((kind) => `${kind}_temp_path tmp/${kind};`);
  const config = (port) => `
    ${process.getuid() === 0 ? "user root;" : ""}
    daemon off; worker_processes 1; pid nginx.pid; error_log stderr;
    events { worker_connections 128; }
    http {
      ${temporary.join("\n")}
      log_format lines '$status $request_method $request_uri';
      access_log access.log lines;
      limit_req_zone $binary_remote_addr zone=api:1m rate=5r/s;
      limit_req_status 429;
      server {
        listen 127.0.0.1:${port};
        location = /up { access_log off; return 204; }
        location / {
          limit_req zone=api ${burst};
          proxy_pass ${new URL(api.url).origin};
          proxy_set_header Host $http_host;
        }
      }
    }`;
  const args = (port) => {
    writeFileSync(join(dir, "nginx.conf"), config(port));
    return ["-p", dir, "-e", "stderr", "-c", "nginx.conf"];
  };
  const origin = await serve(t, "/up", "nginx", args, { cwd: dir });
  const requests = () =>
    readFileSync(log, "utf8")
      .trim()
      .split("\n")
      .map((line) => line.split(" "))
      .map(([status, method, path]) => ({ status, method, path }));
  return { api, requests, url: `${origin}/products?_page=1&_limit=${PAGE}` };
}

const config = (url, rate) => `
[dio.products]
write.http = { create = "POST /", patch = "PATCH /{id}", delete = "DELETE /{id}" }
[dio.products.source]
http = "${url}"
page = { header_link = "next" }
one = "/{id}"
${rate}
`;

describe("nginx", { concurrency: true }, () => {
  for (const [burst, rate] of [
    ["", "rate = { per_second = 5, burst = 1 }"],
    ["burst=4 nodelay", "rate = { per_second = 5 }"],
  ]) {
    test(`limit_req ${burst || "without burst"} refuses no request with ${rate}`, async (t) => {
      const { api, requests, url } = await limited(t, burst);
      const diorama = await Diorama.start(t, config(url, rate));
      assert.deepEqual(await diorama.list("order=id&limit=1000"), products(ROWS));
      await Promise.all(products(20).map(({ id }) => diorama.write("PATCH", id, { price: 1000 + id })));
      await diorama.write("DELETE", 25);
      await diorama.write("POST", undefined, { name: "Pretzel", price: 90 });
      const operations = await diorama.settled();
      assert.deepEqual([...new Set(operations.map(({ state }) => state))], ["applied"]);
      await diorama.refresh();
      assert.deepEqual(await diorama.list("order=id&limit=1000"), await api.rows());
      const seen = requests();
      assert.deepEqual(seen.filter(({ status }) => Number(status) >= 300), []);
      const count = (method) => seen.filter((request) => request.method === method).length;
      assert.deepEqual([count("PATCH"), count("DELETE"), count("POST")], [20, 1, 1]);
      assert.ok(count("GET") > ROWS / PAGE);
    });
  }

  test("writes settle against a limit that is not configured", async (t) => {
    const { api, requests, url } = await limited(t, "");
    // One page, so that the start needs one request for it and one for the list.
    const whole = url.replace(`_limit=${PAGE}`, "_limit=1000");
    const diorama = await Diorama.start(t, config(whole, ""));
    await Promise.all([1, 2, 3].map((id) => diorama.write("PATCH", id, { price: 1000 + id })));
    await diorama.settled();
    const rows = await get(api.url);
    assert.deepEqual(rows.slice(0, 3).map(({ price }) => price), [1001, 1002, 1003]);
    const seen = requests().filter(({ method }) => method === "PATCH");
    assert.equal(seen.filter(({ status }) => status === "200").length, 3);
    assert.ok(requests().some(({ status }) => status === "429"), "nginx has refused nothing");
  });
});

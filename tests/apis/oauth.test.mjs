// oauth2-mock-server gives tokens for client credentials; an API accepts them until they end or are revoked.
import assert from "node:assert/strict";
import { createPublicKey, verify } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";
import { test } from "node:test";
import { OAuth2Server } from "oauth2-mock-server";
import { products } from "./common.mjs";
import { Diorama, pause, until } from "./harness.mjs";

const SECONDS = 4;
const SECRET = "s3cret of the client";

async function tokens(t) {
  const server = new OAuth2Server();
  await server.issuer.keys.generate("RS256");
  await server.start(0, "127.0.0.1");
  t.after(() => server.listening && server.stop());
  const seen = { requests: [], server, url: `${server.issuer.url}/token` };
  server.service.on("beforeTokenSigning", (token) => {
    token.payload.exp = Math.floor(Date.now() / 1000) + SECONDS;
    token.payload.jti = String(seen.requests.length);
  });
  server.service.on("beforeResponse", (response, request) => {
    seen.requests.push({ authorization: request.headers.authorization, body: request.body });
    if (response.body) response.body.expires_in = SECONDS;
  });
  return seen;
}

// Reason why a token is not accepted.
function refusal(server, header) {
  const [head, payload, signature] = (header ?? "").replace(/^Bearer /, "").split(".");
  if (!signature) return "no token";
  const key = createPublicKey({ key: server.issuer.keys.toJSON()[0], format: "jwk" });
  if (!verify("RSA-SHA256", Buffer.from(`${head}.${payload}`), key, Buffer.from(signature, "base64url"))) return "a forged token";
  const { exp } = JSON.parse(Buffer.from(payload, "base64url"));
  return Date.now() / 1000 < exp ? undefined : "a token that has ended";
}

async function api(t, server) {
  const seen = { used: new Set(), revoked: new Set(), refused: [], rows: products(20) };
  const listener = createServer((request, response) => {
    const header = request.headers.authorization;
    const problem = seen.revoked.has(header) ? "a revoked token" : refusal(server, header);
    if (problem) seen.refused.push(problem);
    else seen.used.add(header);
    response.writeHead(problem ? 401 : 200, { "content-type": "application/json" });
    response.end(JSON.stringify(problem ? { message: problem } : seen.rows));
  });
  listener.listen(0, "127.0.0.1");
  await once(listener, "listening");
  t.after(() => listener.close(() => {}) && listener.closeAllConnections());
  seen.url = `http://127.0.0.1:${listener.address().port}/products`;
  return seen;
}

test("tokens for client credentials are renewed before they end, and after they are revoked", async (t) => {
  const issuer = await tokens(t);
  const seen = await api(t, issuer.server);
  const config = `
    [dio.products.source]
    http = "${seen.url}"
    auth = { oauth2_client_credentials = "${issuer.url}", client_id = "shop/1", client_secret = "env:SECRET", scope = "read write" }`;
  const diorama = await Diorama.start(t, config, { env: { SECRET } });
  assert.equal((await diorama.list()).length, 20);

  const end = Date.now() + 2 * SECONDS * 1000;
  while (Date.now() < end) {
    await diorama.refresh();
    await pause(100);
  }
  assert.deepEqual(seen.refused, []);
  assert.ok(seen.used.size >= 3, `${seen.used.size} tokens in twice the time that one lasts`);
  assert.ok(issuer.requests.length <= 8, `${issuer.requests.length} tokens were fetched`);
  const basic = Buffer.from(`shop%2F1:${SECRET.replaceAll(" ", "+")}`).toString("base64");
  for (const { authorization, body } of issuer.requests) {
    assert.equal(authorization, `Basic ${basic}`);
    assert.deepEqual({ ...body }, { grant_type: "client_credentials", scope: "read write" });
  }

  await t.test("a revoked token is replaced at once", async () => {
    seen.used.forEach((header) => seen.revoked.add(header));
    await diorama.refresh();
    assert.deepEqual(seen.refused.slice(1), []);
  });
  await t.test("without tokens the copy stays, and the reason is told", async () => {
    await issuer.server.stop();
    seen.used.forEach((header) => seen.revoked.add(header));
    await until("the refresh fails", async () => {
      const answer = await fetch(`${diorama.url}/products/_refresh`, { method: "POST" });
      return answer.status >= 500 && /no token from http/.test(await answer.text());
    });
    assert.equal((await diorama.list()).length, 20);
    assert.ok(!diorama.process.said.includes(SECRET) && !diorama.process.said.includes(basic), "a secret is in the log");
  });
});

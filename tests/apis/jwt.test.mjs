// oauth2-mock-server as the issuer of callers' tokens: they count by the keys that it publishes, also after a rotation and while it is down.
import assert from "node:assert/strict";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import { test } from "node:test";
import { OAuth2Server } from "oauth2-mock-server";
import { Diorama, freePort, get, json, until } from "./harness.mjs";

const AUDIENCE = "https://api.example.com";
const ROOT = "the-key-of-the-administrator";

// An issuer whose keys can be replaced, and which can be out of order. It counts the requests for its keys.
class Issuer {
  static async start(t) {
    const issuer = new Issuer();
    Object.assign(issuer, { fetches: 0, isDown: false, url: `http://127.0.0.1:${await freePort()}` });
    await issuer.renew("first");
    const listener = createServer((request, response) => {
      if (request.url === "/jwks") issuer.fetches += 1;
      if (issuer.isDown) return request.socket.destroy();
      issuer.server.service.requestHandler(request, response);
    });
    listener.listen(Number(new URL(issuer.url).port), "127.0.0.1");
    await once(listener, "listening");
    t.after(() => listener.close(() => {}) && listener.closeAllConnections());
    return issuer;
  }

  // From now on it has one other key, and none of those before.
  async renew(kid) {
    this.server = new OAuth2Server();
    this.server.issuer.url = this.url;
    await this.add(kid);
  }

  add(kid) {
    return this.server.issuer.keys.generate("RS256", { kid });
  }

  // A token that is signed with the key `kid`, whether or not that is published. `change` gets its claims and header.
  async token(kid, change = () => {}) {
    const scopesOrTransform = (header, payload) => {
      Object.assign(payload, { sub: "program", role: "member", aud: AUDIENCE });
      change(payload, header);
    };
    return this.server.issuer.buildToken({ kid, scopesOrTransform });
  }

  // A token of its token endpoint, as programs get it.
  async granted() {
    this.server.service.once("beforeTokenSigning", ({ payload }) => Object.assign(payload, { sub: "program", role: "member" }));
    const body = new URLSearchParams({ grant_type: "client_credentials", aud: AUDIENCE });
    return (await (await fetch(`${this.url}/token`, { method: "POST", body })).json()).access_token;
  }
}

function start(t, issuer) {
  const config = `
    [key.root]
    token = "env:ROOT"
    role = "admin"
    [jwt.idp]
    issuer = "${issuer.url}"
    audience = "${AUDIENCE}"
    algorithms = ["RS256"]
    jwks = "${issuer.url}/jwks"
    [[allow]]
    role = "member"
    dio = "products"
    can = ["read"]
    where = "owner=eq.{claims.sub}"
    [dio.products]
    source = { json = "products.json" }`;
  const rows = [["1", "program"], ["2", "another"]].map(([id, owner]) => ({ id, owner }));
  const prepare = (dir) => writeFileSync(join(dir, "products.json"), JSON.stringify(rows));
  return Diorama.start(t, config, { env: { ROOT }, prepare });
}

// The status of a list, and the rows or the reason of the refusal.
async function ask(diorama, token) {
  const { status, value, headers } = await json(`${diorama.url}/products`, { headers: { authorization: `Bearer ${token}` } });
  if (status !== 200) assert.equal(headers.get("www-authenticate")?.includes(value.detail) ?? status === 503, true, JSON.stringify(value));
  return [status, status === 200 ? value.map(({ id }) => id) : value.detail];
}

const ADMITTED = [200, ["1"]];
const UNKNOWN_KEY = [401, "the token is signed with an unknown key"];
const troubles = async (diorama) => (await get(`${diorama.url}/readyz`, { headers: { authorization: `Bearer ${ROOT}` } })).auth ?? [];
const hasKeys = (diorama) => until("the keys are there", async () => (await troubles(diorama)).length === 0);

test("tokens of the issuer count, and others are refused with the reason", async (t) => {
  const issuer = await Issuer.start(t);
  const diorama = await start(t, issuer);
  await hasKeys(diorama);
  assert.deepEqual(await ask(diorama, await issuer.granted()), ADMITTED);
  assert.deepEqual(await ask(diorama, await issuer.token("first", (claims) => (claims.aud = ["x", AUDIENCE]))), ADMITTED);
  const now = Math.floor(Date.now() / 1000);
  for (const [change, reason] of [
    [(claims) => (claims.aud = "https://other.example.com"), "the token is for another audience"],
    [(claims) => delete claims.aud, "the token is for another audience"],
    [(claims) => (claims.iss = "https://idp.example.com"), "the token is of an unknown issuer"],
    [(claims) => (claims.iss = `${issuer.url}/`), "the token is of an unknown issuer"],
    [(claims) => (claims.exp = now - 60), "the token has expired"],
    [(claims) => delete claims.exp, "the token has no valid exp"],
    [(claims) => (claims.nbf = now + 60), "the token is not valid yet"],
    [(claims) => delete claims.sub, "the token has no valid sub"],
    [(claims) => delete claims.role, "the token has no role"],
  ]) {
    assert.deepEqual(await ask(diorama, await issuer.token("first", change)), [401, reason]);
  }
  // A key of somebody else under the name of a known one.
  const forger = await Issuer.start(t);
  forger.server.issuer.url = issuer.url;
  assert.deepEqual(await ask(diorama, await forger.token("first")), [401, "the signature of the token is not valid"]);
  assert.equal(issuer.fetches, 1, "none of them is a reason to ask for keys");
});

test("a new key counts at its first token without a restart, and a removed one no longer", async (t) => {
  const issuer = await Issuer.start(t);
  const diorama = await start(t, issuer);
  await hasKeys(diorama);
  const old = await issuer.token("first");
  assert.deepEqual(await ask(diorama, old), ADMITTED);
  await issuer.renew("second");
  const first = issuer.fetches;
  const renewed = await Promise.all(Array.from({ length: 20 }, async () => ask(diorama, await issuer.token("second"))));
  assert.deepEqual(renewed, Array(20).fill(ADMITTED));
  assert.equal(issuer.fetches, first + 1, "the requests share one question");
  assert.deepEqual(await ask(diorama, old), UNKNOWN_KEY, "also a token that was verified before");

  await t.test("unknown keys cause no storm of requests to the issuer", async () => {
    await issuer.add("third");
    const before = issuer.fetches;
    const tokens = [await issuer.token("third")];
    for (let number = 0; number < 200; number += 1) tokens.push(await issuer.token("third", (_, header) => (header.kid = `made up ${number}`)));
    // Failed authentications of one address are limited.
    const answers = await Promise.all(tokens.map((token) => json(`${diorama.url}/products`, { headers: { authorization: `Bearer ${token}` } })));
    const statuses = new Set(answers.map(({ status }) => status));
    assert.ok([...statuses].every((status) => [401, 429].includes(status)), [...statuses].join());
    assert.equal(issuer.fetches, before, "it was asked less than a minute ago");
    assert.deepEqual(await ask(diorama, await issuer.token("second")), ADMITTED, "known keys go on");
  });
});

test("while the issuer is down, known keys go on, and unknown ones are refused", async (t) => {
  const issuer = await Issuer.start(t);
  const diorama = await start(t, issuer);
  await hasKeys(diorama);
  const known = await issuer.token("first");
  issuer.isDown = true;
  assert.deepEqual(await ask(diorama, known), ADMITTED);
  assert.deepEqual(await ask(diorama, await issuer.token("first")), ADMITTED, "a token that was not seen before");
  await issuer.add("second");
  assert.deepEqual(await ask(diorama, await issuer.token("second")), UNKNOWN_KEY);
  const [trouble] = await until("the reason is told", async () => {
    const told = await troubles(diorama);
    return told.length > 0 && told;
  });
  assert.match(trouble, /^the keys of idp are old: /);
  issuer.isDown = false;
  await hasKeys(diorama);
  assert.deepEqual(await ask(diorama, await issuer.token("second")), ADMITTED, "the issuer was asked again after the failure");
});

test("a server that starts while the issuer is down refuses its tokens with 503, and admits them once there are keys", async (t) => {
  const issuer = await Issuer.start(t);
  issuer.isDown = true;
  const diorama = await start(t, issuer);
  const token = await issuer.token("first");
  assert.deepEqual(await ask(diorama, token), [503, "the keys of the issuer are not available"]);
  assert.match((await troubles(diorama))[0], /^there are no keys of idp, so its tokens are refused: /);
  const before = issuer.fetches;
  for (let number = 0; number < 100; number += 1) await ask(diorama, token);
  assert.ok(issuer.fetches <= before + 2, `${issuer.fetches - before} requests for keys`);
  issuer.isDown = false;
  await until("it is admitted", async () => (await ask(diorama, token))[0] === 200);
});

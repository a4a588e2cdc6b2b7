// kill -9 in the middle of a stream of writes to an API that answers late.
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { test } from "node:test";
import { command, Diorama, json, pause, until } from "./harness.mjs";

const ROWS = 10;
const WRITES = 80;
const CRASHES = 3;
// Time between the effect of a write and its answer.
const LATE = 60;

// Rows with the number of the last write. `effects` has the numbers of all writes in their order, `requests` how often each came.
async function api(t, honours) {
  const rows = new Map(Array.from({ length: ROWS }, (_, id) => [String(id), { id: String(id), number: -1 }]));
  const seen = { effects: [], requests: new Map(), keys: new Set(), repeated: 0 };
  const listener = createServer(async (request, response) => {
    const answer = (value) => response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(value));
    const id = request.url.split("/")[2];
    if (request.method === "GET") return answer(id === undefined ? [...rows.values()] : rows.get(id));
    let body = "";
    for await (const part of request) body += part;
    const { number } = JSON.parse(body);
    seen.requests.set(number, (seen.requests.get(number) ?? 0) + 1);
    const key = honours && request.headers["idempotency-key"];
    if (key && seen.keys.has(key)) seen.repeated += 1;
    else {
      if (key) seen.keys.add(key);
      seen.effects.push(number);
      rows.set(id, { id, number });
    }
    await pause(LATE);
    answer(rows.get(id));
  });
  listener.listen(0, "127.0.0.1");
  await once(listener, "listening");
  t.after(() => listener.close(() => {}) && listener.closeAllConnections());
  return { seen, url: `http://127.0.0.1:${listener.address().port}/products` };
}

// Sends writes while the process is ended several times. Returns the numbers that were accepted, with their operations.
async function stream(t, diorama, seen) {
  const accepted = new Map();
  const send = async (number) => {
    const path = `${diorama.url}/products/${number % ROWS}`;
    try {
      const { status, headers } = await json(path, { method: "PATCH", body: { number } });
      if (status === 202) accepted.set(number, headers.get("dio-operation").split("/").pop());
      return status === 202;
    } catch {
      return false;
    }
  };
  const crashes = (async () => {
    for (let crash = 1; crash <= CRASHES; crash += 1) {
      // In the middle: the API has acted on some writes, and on one whose answer is not there yet.
      const due = crash * 10;
      await until("the API has acted", () => seen.effects.length >= due);
      await diorama.crash(t);
    }
  })();
  for (let number = 0; number < WRITES; number += 1) {
    // A write without an answer may or may not count; the next one has another number.
    if (!(await send(number))) await pause(50);
    await pause(5);
  }
  await crashes;
  return accepted;
}

const config = (url, { resource = "", write = "", source = "" }) => `
[dio.products]
${resource}
write.http = { patch = "PATCH /{id}"${write} }
source = { http = "${url}"${source} }
`;

test("an API that honours Idempotency-Key acts once on each accepted write", async (t) => {
  const { url, seen } = await api(t, true);
  const diorama = await Diorama.start(t, config(url, { write: ', idempotency = "Idempotency-Key"' }));
  const accepted = await stream(t, diorama, seen);
  const operations = await diorama.settled();
  assert.deepEqual(operations.filter(({ state }) => state !== "applied"), []);
  const times = (number) => seen.effects.filter((own) => own === number).length;
  assert.deepEqual([...accepted.keys()].filter((number) => times(number) !== 1), []);
  assert.deepEqual([...seen.effects].sort((a, b) => a - b), seen.effects, "the order has changed");
  assert.ok(accepted.size > WRITES / 2, `${accepted.size} writes were accepted`);
  assert.ok(seen.repeated >= 1, "no write was sent again");
});

for (const [outcome, source] of [
  ["parked", ""],
  ["found in the row", ', one = "/{id}"'],
]) {
  test(`writes whose answer was lost are ${outcome}, and none is sent twice`, async (t) => {
    const { url, seen } = await api(t, false);
    const diorama = await Diorama.start(t, config(url, { resource: 'on_unknown = "park"', source }));
    const accepted = await stream(t, diorama, seen);
    const operations = await diorama.settled();
    assert.deepEqual([...seen.requests].filter(([, count]) => count > 1), []);
    const parked = operations.filter(({ state }) => state === "parked").map(({ id }) => id);
    assert.equal(parked.length > 0, outcome === "parked", `${parked.length} writes are parked`);
    const state = new Map(operations.map(({ id, state }) => [id, state]));
    for (const [number, id] of accepted) {
      assert.ok(state.get(id) === "applied" || parked.includes(id), `write ${number} is ${state.get(id)}`);
      if (state.get(id) === "applied") assert.equal(seen.requests.get(number), 1);
    }
    const listed = await command(t, "ops", "list", "--state", "parked", "--url", diorama.url);
    for (const id of parked) assert.ok(listed.includes(id), `${id} is not in ${listed}`);
    assert.equal(listed.trim().split("\n").length, parked.length + 1, listed);
  });
}

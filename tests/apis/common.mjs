// What every API must show: `diorama try` finds how it is read, its rows are served, changes go both ways.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { command, Diorama } from "./harness.mjs";

export const NAMES = ["Bun", "Muffin", "Rye", "Croissant", "Baguette"];
export const products = (count, id = (n) => n) =>
  Array.from({ length: count }, (_, at) => ({
    id: id(at + 1),
    name: `${NAMES[at % NAMES.length]} ${at + 1}`,
    price: (at * 37) % 500,
  }));

const byId = (rows) => [...rows].sort((a, b) => (String(a.id) < String(b.id) ? -1 : 1));

// The configuration that `diorama try` prints, with lines for writes.
export async function tried(t, url, { resource = [], source = [], args = [] } = {}) {
  const found = await command(t, "try", url, "--name", "products", ...args);
  assert.match(found, /^\[dio\.products\.source\]$/m);
  const pasted = found.replace(/^\[dio\.products\.source\]$/m, (header) => [header, ...source].join("\n"));
  return { found, config: `[dio.products]\n${resource.join("\n")}\n${pasted}` };
}

// The configuration below a heading of docs/connect/http.md, with another address.
export function recipe(name, url) {
  const section = readFileSync(process.env.PAGE, "utf8").split(`\n### ${name}\n`)[1];
  const [, toml] = section.match(/```toml\n(.*?)```/s);
  assert.match(toml, /"http:\/\/localhost:\d+/);
  return toml.replace(/http:\/\/localhost:\d+/, new URL(url).origin);
}

// `api` is the server behind Diorama: rows(), add(row), change(id, columns), remove(id).
export async function bothWays(t, config, api, env) {
  const diorama = await Diorama.start(t, config, { env });
  const isSame = async () => {
    assert.deepEqual(byId(await diorama.list()), byId(await api.rows()));
    return true;
  };
  await t.test("the rows are those of the API", isSame);
  await t.test("they are filtered and sorted", async () => {
    const rows = await api.rows();
    const expected = rows
      .filter(({ name, price }) => name.startsWith("Rye") && price > 100)
      .sort((a, b) => b.price - a.price);
    assert.ok(expected.length > 3);
    const found = await diorama.list("name=like.Rye*&price=gt.100&order=price.desc&limit=1000");
    assert.deepEqual(
      found.map(({ price }) => price),
      expected.map(({ price }) => price),
    );
  });
  await t.test("changes at the API arrive with a refresh", async () => {
    const [first, second] = await api.rows();
    await api.add({ name: "Scone", price: 7 });
    await api.change(first.id, { price: 4711 });
    await api.remove(second.id);
    await diorama.refresh();
    await isSame();
    const prices = (await diorama.list()).map(({ price }) => price);
    assert.ok(prices.includes(7) && prices.includes(4711));
  });
  await t.test("writes arrive at the API", async () => {
    const made = await diorama.write("POST", undefined, { name: "Pretzel", price: 90 });
    assert.ok(made.id !== undefined && made.id !== null, JSON.stringify(made));
    const [, , third, fourth] = await api.rows();
    await diorama.write("PATCH", third.id, { price: 8888 });
    await diorama.write("PATCH", made.id, { price: 91 });
    await diorama.write("DELETE", fourth.id);
    const operations = await diorama.settled();
    assert.deepEqual(operations.filter(({ state }) => state !== "applied"), []);
    const rows = await api.rows();
    const find = (id) => rows.find((row) => String(row.id) === String(id));
    assert.deepEqual(find(made.id), { ...made, price: 91 });
    assert.deepEqual(find(third.id), { ...third, price: 8888 });
    assert.equal(find(fourth.id), undefined);
    assert.equal(rows.filter(({ name }) => name === "Pretzel").length, 1);
    await isSame();
    await diorama.refresh();
    await isSame();
  });
  return diorama;
}

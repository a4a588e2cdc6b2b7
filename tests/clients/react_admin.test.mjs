// react-admin's data providers: every method that its pages call.
import assert from "node:assert/strict";
import test from "node:test";
import { fetchUtils } from "ra-core";
import jsonServer from "ra-data-json-server";
import simpleRest from "ra-data-simple-rest";
import { withDemo } from "./server.mjs";

const page = (page, perPage) => ({ page, perPage });
const by = (field, order) => ({ field, order });
const ids = (rows) => rows.map((row) => row.id);

const providers = {
  "ra-data-json-server": (url) => jsonServer(url),
  "ra-data-simple-rest": (url) => simpleRest(url),
  "ra-data-simple-rest with X-Total-Count": (url) => simpleRest(url, fetchUtils.fetchJson, "X-Total-Count"),
};

for (const [name, make] of Object.entries(providers)) {
  await withDemo(test, name, async (t, demo) => {
    const provider = make(demo.url);
    const list = (filter, pagination, sort = by("price", "DESC"), resource = "products") =>
      provider.getList(resource, { pagination, sort, filter });

    await t.test("a list is sorted, cut into pages, and knows its total", async () => {
      const first = await list({}, page(1, 7));
      const second = await list({}, page(2, 7));
      assert.equal(first.total, 40);
      assert.equal(first.data.length, 7);
      const prices = [...first.data, ...second.data].map((row) => row.price);
      assert.deepEqual(prices, prices.toSorted((a, b) => b - a));
      assert.equal(new Set(ids([...first.data, ...second.data])).size, 14);
      const ascending = await list({}, page(1, 1), by("price", "ASC"));
      assert.equal(ascending.data[0].price, 180);
    });

    await t.test("filters: equal, at least, search, several values", async () => {
      const category = await list({ category_id: 2 }, page(1, 3));
      assert.equal(category.total, 10);
      assert.ok(category.data.every((row) => row.category_id === 2));
      const dear = await list({ category_id: 1, price_gte: 700 }, page(1, 25));
      assert.ok(dear.total > 0 && dear.data.every((row) => row.price >= 700 && row.category_id === 1));
      const found = await list({ q: "whole rye" }, page(1, 25));
      assert.deepEqual(ids(found.data), ["rye"]);
      const two = await list({ category_id: [1, 2] }, page(1, 25));
      assert.equal(two.total, 20);
      const none = await list({ name: "No such cake" }, page(1, 25));
      assert.deepEqual([none.total, none.data], [0, []]);
    });

    await t.test("one, many, and those that refer to another", async () => {
      const one = await provider.getOne("products", { id: "rye" });
      assert.equal(one.data.name, "Dark Rye");
      const many = await provider.getMany("products", { ids: ["rye", "baguette", "no-such"] });
      assert.deepEqual(ids(many.data).sort(), ["baguette", "rye"]);
      const single = await provider.getMany("products", { ids: ["rye"] });
      assert.deepEqual(ids(single.data), ["rye"]);
      const reference = { target: "product_id", id: "sourdough", pagination: page(1, 5), sort: by("id", "ASC"), filter: {} };
      const orders = await provider.getManyReference("orders", reference);
      assert.ok(orders.total >= 1 && orders.data.every((row) => row.product_id === "sourdough"));
    });

    await t.test("create, update, delete, one by one and many at once", async () => {
      const order = { product_id: "rye", quantity: 2, price: 1480, customer: "Zoë & Söhne", status: "open" };
      const { data: created } = await provider.create("orders", { data: order });
      assert.ok(created.id !== undefined);
      assert.deepEqual({ ...created, id: undefined }, { ...order, id: undefined });
      const got = await provider.getOne("orders", { id: created.id });
      assert.deepEqual(got.data, created);
      const changed = { ...created, status: "paid" };
      const updated = await provider.update("orders", { id: created.id, data: changed, previousData: created });
      assert.deepEqual(updated.data, changed);
      const { data: other } = await provider.create("orders", { data: { ...order, customer: "Alan" } });
      const both = [created.id, other.id];
      const closed = await provider.updateMany("orders", { ids: both, data: { ...order, status: "closed" } });
      assert.deepEqual(closed.data, both);
      const after = await list({ status: "closed" }, page(1, 5), by("id", "ASC"), "orders");
      assert.deepEqual(ids(after.data).sort(), both.toSorted());
      const deleted = await provider.delete("orders", { id: created.id, previousData: changed });
      assert.equal(deleted.data.id, created.id);
      const rest = await provider.deleteMany("orders", { ids: [other.id] });
      assert.deepEqual(rest.data, [other.id]);
      await assert.rejects(provider.getOne("orders", { id: created.id }), { name: "HttpError", status: 404 });
    });

    await t.test("an id may hold what a URL may not", async () => {
      const order = { id: "no. 5 & ü", product_id: "rye", quantity: 1, price: 740 };
      await provider.create("orders", { data: order });
      assert.equal((await provider.getOne("orders", { id: order.id })).data.id, order.id);
      assert.equal((await provider.delete("orders", { id: order.id, previousData: order })).data.id, order.id);
    });

    await t.test("a refusal has a sentence for the notification and one for each field of the form", async () => {
      const wrong = provider.create("orders", { data: { product_id: "rye", quantity: "many", price: 1 } });
      await assert.rejects(wrong, (error) => {
        assert.equal(error.status, 422);
        assert.equal(error.message, error.body.detail);
        assert.equal(typeof error.body.errors.quantity, "string");
        return true;
      });
      await assert.rejects(list({ prize: 5 }, page(1, 5)), (error) => {
        assert.equal(error.status, 400);
        assert.match(error.body.hint, /price/);
        return true;
      });
    });
  });
}

await withDemo(test, "a page of another origin may send and read what the providers need", async (t, demo) => {
  const origin = "http://localhost:5173";
  for (const [method, headers] of [["GET", "range"], ["PUT", "content-type"], ["DELETE", "content-type"], ["PATCH", "if-match"]]) {
    const asked = { origin, "access-control-request-method": method, "access-control-request-headers": headers };
    const preflight = await fetch(`${demo.url}/orders`, { method: "OPTIONS", headers: asked });
    assert.ok(preflight.ok, `${method}: ${preflight.status}`);
    const allowed = (name) => preflight.headers.get(`access-control-allow-${name}`).toLowerCase().split(/, */);
    assert.ok(allowed("methods").includes(method.toLowerCase()));
    assert.ok(allowed("headers").includes(headers), `${headers} of ${allowed("headers")}`);
  }
  const answer = await fetch(`${demo.url}/orders?_start=0&_end=5`, { headers: { origin } });
  const exposed = answer.headers.get("access-control-expose-headers").toLowerCase();
  for (const name of ["x-total-count", "content-range", "link", "etag", "dio-position"]) assert.ok(exposed.includes(name), name);
  assert.equal(answer.headers.get("access-control-allow-origin"), origin);
});

// refine's REST provider: every method that its hooks call.
import assert from "node:assert/strict";
import test from "node:test";
import dataProvider from "@refinedev/simple-rest";
import { withDemo } from "./server.mjs";

const ids = (rows) => rows.map((row) => row.id);
const where = (field, operator, value) => ({ field, operator, value });

await withDemo(test, "@refinedev/simple-rest", async (t, demo) => {
  const provider = dataProvider(demo.url);
  const list = (more, resource = "products") => provider.getList({ resource, ...more });

  await t.test("a list is sorted by several columns, cut into pages, and knows its total", async () => {
    const sorters = [{ field: "category_id", order: "desc" }, { field: "price", order: "asc" }];
    const first = await list({ pagination: { currentPage: 1, pageSize: 15 }, sorters });
    const second = await list({ pagination: { currentPage: 2, pageSize: 15 }, sorters });
    assert.deepEqual([first.total, first.data.length], [40, 15]);
    const rows = [...first.data, ...second.data];
    const sorted = rows.toSorted((a, b) => b.category_id - a.category_id || a.price - b.price);
    assert.deepEqual(rows.map((row) => row.price), sorted.map((row) => row.price));
    const all = await list({ pagination: { mode: "off" } });
    assert.deepEqual([all.total, all.data.length], [40, 40]);
  });

  await t.test("filters: every operator that the provider maps", async () => {
    const counted = async (...filters) => (await list({ filters, pagination: { currentPage: 1, pageSize: 50 } })).data;
    const all = await counted();
    const like = async (expected, ...filters) => {
      const right = all.filter(expected);
      assert.ok(right.length > 0 && right.length < all.length, "the filter separates rows");
      assert.deepEqual(ids(await counted(...filters)), ids(right), JSON.stringify(filters));
    };
    await like((row) => row.category_id === 2, where("category_id", "eq", 2));
    await like((row) => row.category_id !== 2, where("category_id", "ne", 2));
    await like((row) => row.price >= 500, where("price", "gte", 500));
    await like((row) => row.price <= 500, where("price", "lte", 500));
    await like((row) => /rye/i.test(row.name), where("name", "contains", "rye"));
    await like((row) => row.price >= 200 && row.price <= 500, where("price", "gte", 200), where("price", "lte", 500));
    await like((row) => row.id === "rye", where("q", "eq", "whole rye"));
  });

  await t.test("one and many", async () => {
    assert.equal((await provider.getOne({ resource: "products", id: "rye" })).data.name, "Dark Rye");
    const many = await provider.getMany({ resource: "products", ids: ["rye", "baguette"] });
    assert.deepEqual(ids(many.data).sort(), ["baguette", "rye"]);
  });

  await t.test("create, update of some fields, delete", async () => {
    const variables = { product_id: "rye", quantity: 2, price: 1480, customer: "Ada", status: "open" };
    const { data: created } = await provider.create({ resource: "orders", variables });
    assert.ok(created.id !== undefined);
    const of = { resource: "orders", id: created.id };
    const { data: updated } = await provider.update({ ...of, variables: { status: "paid" } });
    assert.deepEqual(updated, { ...created, status: "paid" });
    assert.deepEqual((await provider.getOne(of)).data, updated);
    const { data: deleted } = await provider.deleteOne(of);
    assert.equal(deleted.id, created.id);
    await assert.rejects(provider.getOne(of), { statusCode: 404 });
  });

  await t.test("a refusal has a message, a status, and a sentence for each field", async () => {
    const wrong = provider.create({ resource: "orders", variables: { product_id: "rye", quantity: "many", price: 1 } });
    await assert.rejects(wrong, (error) => {
      assert.equal(error.statusCode, 422);
      assert.match(error.message, /quantity/);
      assert.equal(typeof error.response.data.errors.quantity, "string");
      return true;
    });
  });
});

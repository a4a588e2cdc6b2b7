// A client with the types of the served document. What must not compile says so: if it did, tsc would complain.
import type { Client } from "openapi-fetch";
import type { components, paths } from "./api.js";

// Of what the server can speak, this client speaks JSON.
type Api = Client<paths, "application/json" | "application/problem+json">;
type Order = components["schemas"]["OrdersRow"];
type Assert = { equal(actual: unknown, expected: unknown): void; ok(value: unknown): asserts value };

export async function shop(api: Api, assert: Assert): Promise<void> {
  const list = await api.GET("/orders", { params: { query: { status: "paid", order: "price.desc", limit: 3 } } });
  assert.ok(Array.isArray(list.data));
  const prices: number[] = list.data.map((row) => row.price ?? 0);
  assert.ok(prices.length > 0);

  const created = await api.POST("/orders", { body: { product_id: "rye", quantity: 2, price: 1480, status: "open" } });
  assert.ok(created.data && !Array.isArray(created.data));
  const order: Order = created.data;
  const id: string = order.id;

  const changed = await api.PATCH("/orders/{id}", { params: { path: { id } }, body: { status: "paid" } });
  assert.equal(changed.error, undefined);
  const got = await api.GET("/orders/{id}", { params: { path: { id } } });
  assert.ok(got.data);
  const status: string | null | undefined = got.data.status;
  assert.equal(status, "paid");

  const refused = await api.PATCH("/orders/{id}", { params: { path: { id }, header: { "If-Match": '"older"' } }, body: { price: 1 } });
  assert.equal(refused.response.status, 412);
  const code: string | undefined = refused.error?.code;
  assert.equal(code, "precondition-failed");

  const deleted = await api.DELETE("/orders/{id}", { params: { path: { id } } });
  assert.ok(deleted.response.ok);
  assert.equal((await api.GET("/orders/{id}", { params: { path: { id } } })).response.status, 404);
}

export async function wrong(api: Api): Promise<void> {
  // @ts-expect-error: there is no such resource
  await api.GET("/pastries");
  // @ts-expect-error: there is no such column
  await api.GET("/orders", { params: { query: { prize: "5" } } });
  // @ts-expect-error: a column without which there is no order
  await api.POST("/orders", { body: { product_id: "rye", quantity: 1 } });
  // @ts-expect-error: a price is a number
  await api.PATCH("/orders/{id}", { params: { path: { id: "1001" } }, body: { price: "5" } });
  // @ts-expect-error: which order?
  await api.GET("/orders/{id}");
}

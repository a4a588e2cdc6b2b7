// TanStack Query with the server's own diorama.js: what the cache shows is what the server has, whoever changed it.
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import test from "node:test";
import { MutationObserver, QueryClient, QueryObserver } from "@tanstack/query-core";
import { withDemo } from "./server.mjs";

const own = new URL("diorama.js", import.meta.url);
const missing = !existsSync(own) && "this server has no diorama.js";

test("@tanstack/query-core", { skip: missing }, (outer) => withDemo(outer.test.bind(outer), "live queries", async (t, demo) => {
  const { list, patch, remove, subscribe } = await import(own);
  const orders = `${demo.url}/orders`;
  const client = new QueryClient();
  t.after(() => client.clear());

  // The recipe: read, follow from what was read, and read again when the events say so.
  let events;
  const asked = { status: "paid", order: "price.desc", limit: 3 };
  const observer = new QueryObserver(client, {
    queryKey: ["orders", asked],
    queryFn: async ({ signal }) => {
      const found = await list(orders, asked, { signal });
      events ??= subscribe(orders, { status: "paid" }, {
        since: found.position,
        onFrame: ({ type }) => /^Record|Invalidated|reset/.test(type) && client.invalidateQueries({ queryKey: ["orders"] }),
      });
      return found;
    },
    retry: 20,
    retryDelay: 100,
  });
  t.after(observer.subscribe(() => {}));
  t.after(() => events?.close());

  const shows = async (fits) => {
    let changed;
    const told = observer.subscribe(() => changed());
    for (let turn = new Promise((resolve) => (changed = resolve)); ; turn = new Promise((resolve) => (changed = resolve))) {
      const { data } = observer.getCurrentResult();
      if (data && fits(data)) break;
      await turn;
    }
    told();
    return observer.getCurrentResult().data;
  };

  const first = await shows(() => true);
  assert.equal(first.rows.length, 3);
  const dearest = first.rows[0];

  await t.test("a mutation shows up without being told to refetch", async () => {
    const mutation = new MutationObserver(client, { mutationFn: ({ id, ...row }) => patch(orders, id, row, { wait: 5 }) });
    await mutation.mutate({ id: dearest.id, price: dearest.price + 1000 });
    await shows(({ rows }) => rows[0].price === dearest.price + 1000);
  });

  await t.test("so does somebody else's change, and one after the server was away", async () => {
    const body = JSON.stringify({ status: "ready" });
    const headers = { "content-type": "application/json" };
    const somebody = () => fetch(`${orders}/${dearest.id}`, { method: "PATCH", headers, body });
    assert.ok((await somebody()).ok);
    const left = await shows(({ rows }) => rows[0].id !== dearest.id);
    assert.equal(left.total, first.total - 1);
    await demo.restart();
    await remove(orders, left.rows[0].id);
    const after = await shows(({ rows }) => rows[0].id !== left.rows[0].id);
    assert.equal(after.total, first.total - 2);
  });

  await t.test("a refusal is the error of the mutation", async () => {
    const mutation = new MutationObserver(client, { mutationFn: (row) => patch(orders, "1003", row) });
    await assert.rejects(mutation.mutate({ price: "much" }), { status: 422, code: "validation-failed" });
    assert.equal(mutation.getCurrentResult().status, "error");
  });
}));

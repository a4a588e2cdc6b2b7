// Queries as the explorer writes them; no browser is needed.

import assert from "node:assert/strict";
import { test } from "node:test";
import { asCurl, direction, formatFilter, nextOrder, parameter, parseFilter, parsePlace, readable } from "./static/query.js";

const text = { name: "name", type: "string", flags: [] };
const integer = { name: "price", type: "integer", flags: [] };

test("a filter that was read is written as it was", () => {
  for (const [column, written] of [
    [text, "ilike.*a b*"], [text, "is.null"], [text, "neq.a.b"], [integer, "gte.5"], [integer, "is.not_null"],
    [text, "ilike.a*"], [integer, "in.(1,2)"], [text, "not.eq.a"], [integer, "like.*5*"],
  ]) {
    assert.equal(formatFilter(parseFilter(written, column)), written);
  }
  assert.deepEqual(parseFilter("5", integer), { operator: "eq", value: "5" });
  assert.equal(formatFilter({ operator: "gte", value: "" }), "");
});

test("columns that are called like parameters are quoted", () => {
  assert.deepEqual(["price", "limit", "_sort"].map(parameter), ["price", '"limit"', '"_sort"']);
});

test("a header sorts up, down and not at all", () => {
  const orders = ["", "price", "price.desc", ""];
  for (let at = 0; at < 3; at += 1) assert.equal(nextOrder(orders[at], "price"), orders[at + 1]);
  assert.equal(nextOrder("name", "unit price"), '"unit price"');
  assert.deepEqual(["price.desc,id", "price.asc", "name"].map((order) => direction(order, "price")), ["descending", "ascending", "none"]);
});

test("a place is the path and the query of the API, and its query stays readable", () => {
  const { parts, query } = parsePlace("#/products/a%2Fb?price=in.(1,2)&name=ilike.*a%20b*&or=(id.eq.1,id.eq.2)");
  assert.deepEqual(parts, ["products", "a/b"]);
  assert.equal(readable(query), "price=in.(1,2)&name=ilike.*a%20b*&or=(id.eq.1,id.eq.2)");
  assert.deepEqual([...new URLSearchParams(readable(new URLSearchParams([["a&b", "1+1=2 %"]])))], [["a&b", "1+1=2 %"]]);
  assert.deepEqual([parsePlace("").parts, parsePlace("#/%").parts], [[], ["%"]]);
});

test("a command for a shell cannot end its quotes", () => {
  assert.equal(asCurl("http://localhost/a?b='$(x)", true), `curl 'http://localhost/a?b=%27$(x)' -H "Authorization: Bearer $TOKEN"`);
});

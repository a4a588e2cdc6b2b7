// JSON that keeps numbers as texts, and cells as people edit them; no browser is needed.

import assert from "node:assert/strict";
import { test } from "node:test";
import { canBeEmpty, cell, kindOf, restored, shown, typed, visible } from "./static/cells.js";
import { difference, isObject, Numeral, numeral, own, parse, pretty, same, write } from "./static/json.js";
import { isAll, namesOf, parameter, parsePlace, placeOfRow, quoted, withId } from "./static/query.js";

const NUMBERS = ["0", "-0", "-0.0", "1.50", "1e400", "1E+2", "9007199254740993", "-9223372036854775808", "18446744073709551615", "0.1000000000000000055511151231257827"];

test("numbers are written as they were read, however deep they are", () => {
  for (const number of NUMBERS) {
    const text = `{"a":${number},"b":[${number},{"c":[[${number}]]}]}`;
    assert.equal(write(parse(text)), text);
    const { a, b } = parse(text);
    assert.equal(`${a}`, number);
    // What is made of parts that were read keeps their numbers, too.
    assert.equal(write({ x: b[1], y: a, z: [a, undefined] }), `{"x":{"c":[[${number}]]},"y":${number},"z":[${number},null]}`);
    assert.ok(pretty(parse(text)).includes(`"a": ${number},`));
  }
  assert.equal(2 * parse("25") + 5, 55);
});

test("other values are those of JSON.parse, and what is no JSON is refused as it refuses it", () => {
  const plain = (value) => JSON.parse(write(value));
  for (const text of [
    "null", "true", "[]", "{}", ' [ 1 ,\t2 ] ', '"\\u00e9\\n\\"\\\\"', '{"a":{"b":[null,false,""]},"":1}', '"\\ud83d\\ude00 \u2028"', '["\\\\"]', '{"\\"":1}',
  ]) {
    assert.deepEqual(plain(parse(text)), JSON.parse(text), text);
    assert.deepEqual(JSON.parse(pretty(parse(text))), JSON.parse(text), text);
  }
  for (const text of ["", " ", "{", "[1,]", '{"a":1,}', "{a:1}", "'a'", "01", "1.", ".5", "+1", "-", "1e", "nul", "[1 2]", '"a', '"\n"', '"\\x"', '"\\"', "1 2", "NaN", "\u00a01", '{"a"}', "]"]) {
    assert.throws(() => JSON.parse(text), text);
    assert.throws(() => parse(text), SyntaxError, text);
  }
  assert.throws(() => parse('{"a":1,"b":{"c":1,"c":2}}', { strict: true }), /at character 19.*twice/);
  assert.throws(() => parse('{"a":\n  x}'), /line 2, character 3/);
  assert.equal(write(parse('{"__proto__":{"x":1},"constructor":2}')), '{"__proto__":{"x":1},"constructor":2}');
  assert.equal(own(parse('{"a":1}'), "toString"), undefined);
  const long = JSON.stringify("x\"\\".repeat(1_000_000));
  assert.equal(write(parse(long)), long);
});

test("a merge patch says what differs, and nothing else", () => {
  for (const [before, after, patch] of [
    ['{"a":1,"b":{"c":1,"d":2}}', '{"a":1,"b":{"c":1}}', '{"b":{"d":null}}'],
    ['{"a":9007199254740993}', '{"a":9007199254740992}', '{"a":9007199254740992}'],
    ['{"a":1}', '{"a":1.0}', '{"a":1.0}'],
    ['{"a":[1,2]}', '{"a":[1,null]}', '{"a":[1,null]}'],
    ['{"a":null,"b":1}', '{"a":null,"b":2}', '{"b":2}'],
    ["5", '{"a":{"b":1}}', '{"a":{"b":1}}'],
    ['{"a":5}', '{"a":{}}', '{"a":{}}'],
    ['{"a":1}', "[1]", "[1]"],
    ['{"a":1}', "null", "null"],
    ['{"a":1}', "{}", '{"a":null}'],
  ]) {
    const made = difference(parse(before), parse(after));
    assert.equal(write(made), patch);
    assert.ok(same(merged(parse(before), made), parse(after)), `${before} ${after}`);
  }
  assert.throws(() => difference(parse('{"a":1}'), parse('{"a":null}')), RangeError);
  assert.throws(() => difference(parse("1"), parse('{"b":{"a":null}}')), RangeError);
});

/** As RFC 7396 has it. */
function merged(target, patch) {
  if (!isObject(patch)) return patch;
  const result = isObject(target) ? { ...target } : {};
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) delete result[name];
    else result[name] = merged(own(result, name), value);
  }
  return result;
}

test("ends of lines are those of the text, where somebody edits it and where not", () => {
  for (const [before, edit, after] of [
    ["a\r\nb\r\n", "a\nb\nc\n", "a\r\nb\r\nc\r\n"],
    ["a\r\nb", "a\nb", "a\r\nb"],
    ["a\nb\n", "a\nb", "a\nb"],
    ["a\rb\rc", "a\nb\nx\nc", "a\rb\rx\rc"],
    ["a\r\nb\nc\r\nd", "a\nB\nc\nd\ne", "a\r\nB\nc\r\nd\r\ne"],
    ["a\r\n\r\nb", "a\nb", "a\r\nb"],
    ["\r\n", "", ""],
    ["a\r\nb", "", ""],
    ["a\r\nb", "a\n\n\nb", "a\r\n\r\n\r\nb"],
    ["a b", "a\nb", "a\nb"],
  ]) {
    assert.equal(restored(before, edit), after, JSON.stringify(before));
  }
  // Whatever is edited, what a control makes of it is what somebody wrote.
  let seed = 7;
  const random = (most) => (seed = (seed * 48_271) % 2_147_483_647) % most;
  const text = (parts) => Array.from({ length: random(8) }, () => parts[random(parts.length)]).join("");
  for (let time = 0; time < 20_000; time += 1) {
    const [before, edit] = [text(["a", "b", "\r\n", "\n", "\r"]), text(["a", "b", "\n"])];
    assert.equal(restored(before, edit).replace(/\r\n?/g, "\n"), edit, JSON.stringify([before, edit]));
    assert.equal(restored(before, before.replace(/\r\n?/g, "\n")), before);
  }
});

test("a control says the value that stands in it, by the column and by what was there", () => {
  const of = (type, value) => kindOf({ name: "a", type, flags: [] }, value);
  assert.deepEqual(["string", "integer", "boolean", "json", "decimal", "bytes"].map((type) => of(type, "x")), ["text", "number", "boolean", "json", "text", "text"]);
  assert.equal(of("string", parse("[1]")), "json");
  assert.equal(of("string", new Numeral("5")), "text");
  for (const number of NUMBERS) assert.equal(`${typed("number", ` ${number} `, undefined)}`, number);
  // What is no number goes to the server as it is, which says so.
  assert.deepEqual([typed("number", "a lot", null), typed("number", "", null)], ["a lot", null]);
  assert.equal(typed("json", '"null"', null), "null");
  assert.equal(typed("json", "null", "x"), null);
  for (const wrong of ["", "{a:1}", "abc", "[1"]) assert.throws(() => typed("json", wrong, null), /This is no JSON/);
  assert.deepEqual(["null", "", "[1.50]"].map((text, at) => shown("json", [null, undefined, parse("[1.50]")][at]) === text), [true, true, true]);
  assert.deepEqual([shown("boolean", null), shown("boolean", undefined), shown("boolean", false)], ["null", "", "false"]);
  assert.deepEqual(["string", "bytes", "integer", "date"].map((type) => canBeEmpty({ name: "a", type, flags: [] }, null)), [true, true, false, false]);
  assert.equal(cell(parse('{"a":1.50}')), '{"a":1.50}');
  assert.equal(numeral("1.5x"), undefined);
  assert.deepEqual(["a b", " ", "\u200b", "\u00a0\t"].map(visible), ["a b", '" "', '"\\u200b"', '"\\u00a0\\t"']);
});

test("names of columns are quoted so that each is found again, whatever is in it", () => {
  const names = ["a,b", 'a"b', '"a"', "a.b", "a b", "a\\b", "[a]", "(a)", "*", "é", "a:b", "a->b", "", "limit", "_x", '",', "a.desc", "日本"];
  assert.deepEqual(namesOf(names.map(quoted).join(",")), names);
  assert.deepEqual(namesOf("id,name, price"), ["id", "name", "price"]);
  assert.deepEqual(namesOf(""), []);
  assert.equal(withId('"a,id"', "id"), 'id,"a,id"');
  assert.deepEqual([withId("name,id", "id"), withId("*", "id"), withId("", "id"), withId("x", "the id")], ["name,id", "*", "", '"the id",x']);
  assert.deepEqual([isAll("a, *"), isAll('a,"*"'), isAll("")], [true, false, true]);
  assert.deepEqual(["a,b", '"a"', "_x", "limit", "", "sort"].map(parameter), ["a,b", '"\\"a\\""', '"_x"', '"limit"', '""', '"sort"']);
});

test("every row has a place, and the place says which", () => {
  for (const id of ["7", "a/b", "..", ".", "%2F", "events", "live", "_new", "_schema", "_row", " ", "é ?#&=+", "\u200b", "a%"]) {
    const { parts: [name, word], query } = parsePlace(placeOfRow("a-b", id));
    assert.equal(name, "a-b");
    assert.equal(word === "_row" ? query.get("id") : word, id);
    assert.ok(word !== "_new" && word !== "events");
  }
});

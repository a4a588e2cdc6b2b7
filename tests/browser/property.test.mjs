// Whatever is in a row: one field is changed in the explorer, and every other cell of the file has the bytes that it had. What is random
// comes from SEED, which a failure names; it takes DIORAMA_EDIT_SECONDS (30).

import assert from "node:assert/strict";
import { test } from "node:test";
import { launch, Server, sqlite, until } from "./harness.mjs";
import { isObject, numeral, parse, same, write } from "./static/json.js";

const SEED = Number(process.env.SEED ?? Date.now() % 1_000_000_007) || 1;
const SECONDS = Number(process.env.DIORAMA_EDIT_SECONDS ?? 30);
const ROWS = 150;

let state = SEED;
const random = (most) => {
  for (let time = 0; time < 3; time += 1) state = (state * 48_271) % 2_147_483_647;
  return state % most;
};
const pick = (all) => all[random(all.length)];
const times = (most, make) => Array.from({ length: random(most) }, make);

const PARTS = ["a", "Z", "é", "😀", " ", "  ", "\t", "\n", "\n\n", "\r\n", "\r\n\r\n", "\r", "\u0000", "\u0001", "\u0085", "\u00a0", "\u2028", "\u200b", "\ufeff", "\"", "\\", "<b>", "null", "{", "x".repeat(70)];
const text = () => pick([() => times(9, () => pick(PARTS)).join(""), () => times(6, () => pick(["line", "\r\n"])).join(""), () => times(6, () => pick(["line", "\n"])).join(""), () => pick(["", "null", "5", "true", "[1]", "\n", " "])])();
const whole = () => pick([0n, -1n, 9007199254740991n, 9007199254740993n, -9007199254740993n, 9223372036854775807n, -9223372036854775808n, BigInt(random(2 ** 31)) * 4_294_967_291n]);
const ratio = () => pick([0.1, -0.0, 1e23, 5e-324, 1.7976931348623157e308, 2 / 3, 123456789.125, random(1000) / 7, 1e21, 1e-7]);
const decimal = () => pick(["1.50", "0.00", "-12345678901234567890.120", "7", "1e3", "99999999999999999999.99"]);
const number = () => numeral(pick(["9007199254740993", "-1", "0.5", "1.25e-7", "18446744073709551615", "100"]));
const value = (depth) => pick([
  () => null, () => true, number, text, number,
  () => (depth ? times(4, () => value(depth - 1)) : []),
  () => (depth ? Object.fromEntries(times(4, () => [pick(["a", "b", "é", "", "1", "\"", "constructor"]), value(depth - 1)])) : {}),
])();
const document = () => pick([() => value(3), () => ({ n: number(), list: [number(), null, { deep: number() }], text: text() })])();
const blob = () => ({ blob: times(12, () => random(256).toString(16).padStart(2, "0")).join("") });
const perhaps = (make) => (random(6) === 0 ? null : make());

/** Columns with how they are declared, what is in them, and what may be written into them: into the control, and what is then in the file. */
const COLUMNS = {
  note: ["TEXT", text],
  more: ["VARCHAR(20)", text],
  whole: ["INTEGER", whole, () => ((value) => [`${value}`, ["integer", `${value}`]])(whole())],
  ratio: ["REAL", ratio, () => ["0.25", ["real", "0x1.0000000000000p-2"]]],
  amount: ["TEXT", decimal, () => ["3.1400", ["text", "3.1400"]]],
  flag: ["BOOLEAN", () => random(2)],
  data: ["BLOB", blob, () => ["AP8", ["blob", "00ff"]]],
  doc: ["JSON", () => write(document()).replaceAll(",", pick([",", ", ", ",\n "]))],
  day: ["DATE", () => pick(["2026-01-31", "", "1999-12-31"]), () => ["2024-02-29", ["text", "2024-02-29"]]],
  moment: ["DATETIME", () => pick(["2026-01-31T12:00:00Z", "2026-01-31T12:00:00.120+02:00", "2026-01-31 12:00:00"]), () => ["2024-02-29T01:02:03.500Z", ["text", "2024-02-29T01:02:03.500Z"]]],
  loose: ["", () => pick([text, whole, ratio, blob])()],
  other: ["INTEGER", () => pick([text, ratio])()],
};
const NAMES = Object.keys(COLUMNS);

test("one field of a random row is changed, and all others keep their bytes", { timeout: 600_000 }, async (context) => {
  const server = new Server((text) => `${text}\n[dio.random]\nsource = { sqlite = "random.db", table = "random" }\nrefresh_every = "1h"\n[dio.random.columns]\namount = { type = "decimal" }\n`);
  const inFile = () => new Map(sqlite(`${server.folder}/random.db`, [[`SELECT id, ${NAMES.join(", ")} FROM random`]]).map(([[, id], ...cells]) => [id, cells]));
  server.prepare = (folder) => sqlite(`${folder}/random.db`, [
    [`CREATE TABLE random (id INTEGER PRIMARY KEY, ${NAMES.map((name) => `${name} ${COLUMNS[name][0]}`).join(", ")})`],
    ...Array.from({ length: ROWS }, (_, at) => [`INSERT INTO random VALUES (?${",?".repeat(NAMES.length)})`, [9_007_199_254_740_993n + BigInt(at), ...NAMES.map((name) => perhaps(COLUMNS[name][1]))]]),
  ]);
  const browser = await launch();
  try {
    await server.start();
    const before = inFile();
    const expected = new Map(before);
    const page = await browser.newPage({ viewport: { width: 1280, height: 1000 } });
    page.setDefaultTimeout(60_000);
    const end = Date.now() + SECONDS * 1000;
    let done = 0;
    for (const [id, cells] of before) {
      if (Date.now() > end) break;
      const name = pick(NAMES.filter((each) => each !== "loose" && each !== "other"));
      const what = `SEED=${SEED}, row ${id}, column ${name}, ${JSON.stringify(cells)}`;
      try {
        const written = await edit(page, server, id, name, cells[NAMES.indexOf(name)]);
        expected.set(id, cells.with(NAMES.indexOf(name), written));
      } catch (error) {
        throw new Error(`${what}: ${error.stack}`);
      }
      done += 1;
    }
    context.diagnostic(`SEED=${SEED}: ${done} rows`);
    assert.ok(done > 5, `only ${done} rows in ${SECONDS} s`);
    for (const [id, now] of inFile()) {
      const wanted = expected.get(id);
      for (const [at, name] of NAMES.entries()) {
        const fits = typeof wanted[at] === "function" ? wanted[at](now[at]) : JSON.stringify(now[at]) === JSON.stringify(wanted[at]);
        assert.ok(fits, `SEED=${SEED}, row ${id}, column ${name}: ${JSON.stringify(before.get(id)[at])} is now ${JSON.stringify(now[at])}, not ${wanted[at]}`);
      }
    }
  } finally {
    await browser.close();
    await server.stop();
  }
});

const digits = (text) => (text.match(/\d{10,}/g) ?? []).sort();

/** Changes a field of a row as somebody does, and waits until the source has it; gives what the file should have then, or a test of it. */
async function edit(page, server, id, name, cell) {
  await page.goto(`${server.url}/#/random/${id}`);
  await page.locator("h1", { hasText: id }).waitFor();
  const control = page.getByLabel(name, { exact: true });
  await control.waitFor();
  const shown = await control.inputValue();
  if (name === "whole" && cell[0] === "integer") assert.equal(shown, cell[1]);
  // Members of a document come in the order of their names.
  if (name === "doc" && cell[0] === "text") assert.deepEqual(digits(shown), digits(cell[1]));
  let expected;
  if (name === "flag") {
    const next = shown === "true" ? "false" : "true";
    await control.selectOption(next);
    expected = ["integer", next === "true" ? "1" : "0"];
  } else if (name === "doc") {
    const made = { n: numeral("9007199254740995"), s: "é\n" };
    // The document that is there, with one member more; else another one.
    const old = cell[0] === "null" ? null : parse(shown);
    const next = isObject(old) ? { ...old, added: made } : made;
    await control.fill(write(next));
    expected = ([type, text]) => type === "text" && same(parse(text), parse(write(next)));
  } else if (COLUMNS[name][2]) {
    let [text, stored] = COLUMNS[name][2]();
    if (text === shown) [text, stored] = ["", ["null"]];
    if (text === "" && name === "data") await page.getByRole("checkbox").last().waitFor();
    await control.fill(text);
    expected = stored;
  } else {
    // As JSON it is written where a control cannot hold it.
    const isJson = await control.evaluate((element, type) => type === "text" && element.value.startsWith('"') && element.value.endsWith('"') && element.value.length > 1, cell[0]) && shown !== cell[1].replace(/\r\n?/g, "\n");
    await control.press("Control+End");
    if (isJson) await page.keyboard.press("ArrowLeft");
    await page.keyboard.type("typed");
    expected = ["text", `${cell[1] ?? ""}typed`];
  }
  await page.getByRole("button", { name: "Save" }).click();
  await until("confirmed", async () => {
    if (await page.getByRole("alert").filter({ visible: true }).count()) throw new Error(await page.getByRole("alert").filter({ visible: true }).first().innerText());
    return (await page.getByText("confirmed").count()) > 0;
  }, 30);
  return expected;
}

// Rows of a SQLite file are edited in the explorer; what has become of them is read from the file.

import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { accessible, Server, shot, sqlite, suite, until } from "./harness.mjs";

const CRLF = "first\r\nsecond\r\n";
const KINDS = `CREATE TABLE kinds (
  id TEXT PRIMARY KEY, note TEXT, other TEXT, whole INTEGER, ratio REAL, amount TEXT, flag BOOLEAN, blob BLOB, doc JSON, day DATE,
  moment DATETIME, anything)`;
const BIG = ["9007199254740993", "9223372036854775807", "-9223372036854775808"];
const ODD = ["events", "live", "_new", "_row", "_schema", "a/b", "..", ".", "%2F", " ", "\u200b", "é ?#&=+%", "a\"b'c<d>", "a,b"];
const NAMES = ["a,b", 'a"b', '"a"', "a.b", "a b", "[a]", "*", "é", "limit", "a:b", "(a)", "__proto__"];
const name = (text) => `"${text.replaceAll('"', '""')}"`;

function makeServer() {
  const dio = (table, more = "") => `\n[dio.${table}]\nsource = { sqlite = "kinds.db", table = "${table}" }\nrefresh_every = "1h"\n${more}`;
  const server = new Server((text) => text + dio("kinds", '[dio.kinds.columns]\namount = { type = "decimal" }\n') + dio("bigs") + dio("odd"));
  server.prepare = (folder) => {
    const texts = {
      crlf: CRLF, lf: "a\nb\n", cr: "a\rb", mixed: "a\r\nb\nc\rd", blank: " \t a\t ", long: `${"x".repeat(70)}\r\n`, nothing: "", missing: null,
      control: "a\u0000b\u0001\u001f\u007f\u0085\u2028c\u0000",
    };
    const rows = Object.entries(texts).map(([id, note]) => [
      "INSERT INTO kinds VALUES (?,?,?,?,?,?,?,?,?,?,?,?)",
      [id, note, "plain", 9007199254740993n, 0.1, "1.500", 1, { blob: "00ff0d0a" }, '{"n": 9007199254740993, "d": [1.5, {"x": null}], "s": "a"}', "2026-01-31", "2026-01-31 12:00:00", "null"],
    ]);
    const bigs = BIG.map((id) => ["INSERT INTO bigs VALUES (?,?,?)", [BigInt(id), `name ${id}`, BigInt(id)]]);
    const odd = ODD.map((id) => [`INSERT INTO odd VALUES (?${",?".repeat(NAMES.length)})`, [id, ...NAMES.map((name) => `${name} of ${id}`)]]);
    sqlite(`${folder}/kinds.db`, [
      [KINDS], ...rows, ["CREATE TABLE bigs (id INTEGER PRIMARY KEY, name TEXT, number INTEGER)"], ...bigs,
      [`CREATE TABLE odd (id TEXT PRIMARY KEY, ${NAMES.map((each) => `${name(each)} TEXT`).join(", ")})`], ...odd,
    ]);
  };
  return server;
}

let server;
let page;
const own = suite(makeServer, 30_000);
beforeEach(() => ({ server, page } = own));

const at = (place) => page.goto(`${server.url}/#${place}`);
const control = (column) => page.getByLabel(column, { exact: true });
const nullBox = (column) => page.locator(".field", { has: page.getByText(column, { exact: true }) }).getByRole("checkbox");
const save = () => page.getByRole("button", { name: "Save" }).click();
/** What stands in the file. */
const inFile = (sql, values) => sqlite(`${server.folder}/kinds.db`, [[sql, values]]);
const row = (id) => inFile("SELECT * FROM kinds WHERE id = ?", [id])[0];
const COLUMNS = ["id", "note", "other", "whole", "ratio", "amount", "flag", "blob", "doc", "day", "moment", "anything"];

/** Waits until a column of a row holds something else, which is given; all others hold what they held. */
async function changed(id, column, before) {
  const place = COLUMNS.indexOf(column);
  const now = await until(`${column} of ${id} is written`, () => {
    const now = row(id);
    return JSON.stringify(now[place]) !== JSON.stringify(before[place]) && now;
  });
  assert.deepEqual(now.toSpliced(place, 1), before.toSpliced(place, 1));
  return now[place];
}

/** What the page sends while `act` runs. */
async function sent(act) {
  const bodies = [];
  const note = (request) => ["PATCH", "PUT", "POST"].includes(request.method()) && bodies.push(request.postData());
  page.on("request", note);
  await act();
  page.off("request", note);
  return bodies;
}

test("another field is saved: texts with any ends of lines and control characters stay as they are", async () => {
  for (const [[, id]] of inFile("SELECT id FROM kinds")) {
    const before = row(id);
    await at(`/kinds/${id}`);
    await control("other").fill(`other of ${id}`);
    const bodies = await sent(async () => {
      await save();
      assert.deepEqual(await changed(id, "other", before), ["text", `other of ${id}`]);
    });
    assert.deepEqual(bodies, [`{"other":"other of ${id}"}`]);
  }
});

test("a text is edited: it keeps the ends of lines that it had", async () => {
  for (const [id, expected] of [
    ["crlf", `${CRLF}third`], ["lf", "a\nb\nthird"], ["cr", "a\rbthird"], ["mixed", "a\r\nb\nc\rdthird"], ["blank", " \t a\t third"], ["long", `${"x".repeat(70)}\r\nthird`],
    ["nothing", "third"], ["control", "a\u0000b\u0001\u001f\u007f\u0085\u2028c\u0000third"],
  ]) {
    const before = row(id);
    await at(`/kinds/${id}`);
    const isJson = (await control("note").inputValue()).startsWith('"');
    await control("note").press("Control+End");
    if (isJson) await page.keyboard.press("ArrowLeft");
    await page.keyboard.type("third");
    await save();
    assert.deepEqual(await changed(id, "note", before), ["text", expected], id);
  }
  // New lines end as the others do.
  const before = row("crlf");
  await control("note").waitFor();
  await at("/kinds/crlf");
  await control("note").fill("first\nnew\nsecond\n");
  await save();
  assert.deepEqual(await changed("crlf", "note", before), ["text", "first\r\nnew\r\nsecond\r\n"]);
});

test("several lines that are pasted into a control of one line stay several lines", async () => {
  const before = row("blank");
  await at("/kinds/blank");
  await control("other").press("Control+a");
  await control("other").evaluate((element) => {
    const clipboardData = new DataTransfer();
    clipboardData.setData("text/plain", "pasted\nlines\n");
    element.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true }));
  });
  await save();
  assert.deepEqual(await changed("blank", "other", before), ["text", "pasted\nlines\n"]);
});

test("null, nothing and the text null are three values", async () => {
  for (const [column, act, expected] of [
    ["other", () => control("other").fill(""), ["text", ""]],
    ["other", () => nullBox("other").check(), ["null"]],
    ["other", () => nullBox("other").uncheck(), ["text", ""]],
    ["other", () => control("other").fill("null"), ["text", "null"]],
    ["whole", () => control("whole").fill(""), ["null"]],
    ["whole", () => control("whole").fill("0"), ["integer", "0"]],
    ["flag", () => control("flag").selectOption("null"), ["null"]],
    ["flag", () => control("flag").selectOption("false"), ["integer", "0"]],
    ["doc", () => control("doc").fill("null"), ["null"]],
    ["doc", () => control("doc").fill('""'), ["text", '""']],
  ]) {
    const before = row("lf");
    await at("/");
    await at("/kinds/lf");
    await act();
    await save();
    assert.deepEqual(await changed("lf", column, before), expected, `${act}`);
    await page.getByText("confirmed").first().waitFor();
  }
  // What is written and taken back is no change.
  await at("/kinds/missing");
  await control("note").fill("x");
  await control("note").fill("");
  assert.ok(await nullBox("note").isChecked());
  const bodies = await sent(async () => {
    await save();
    await page.getByText("Nothing has changed.").waitFor();
  });
  assert.deepEqual(bodies, []);
});

test("numbers are those of the source: in ids, links, filters, events, cells and documents", async () => {
  for (const id of BIG) {
    await at("/bigs");
    const link = page.getByRole("link", { name: id, exact: true });
    await link.waitFor();
    assert.equal(await link.getAttribute("href"), `#/bigs/${id}`);
    await link.click();
    await page.locator("h1", { hasText: id }).waitFor();
    assert.equal(await control("number").inputValue(), id);
    await control("name").fill(`edited ${id}`);
    await save();
    await until("written", () => inFile("SELECT name, number FROM bigs WHERE id = ?", [BigInt(id)]).flat(2).join() === `text,edited ${id},integer,${id}`);
    await page.locator(".events pre", { hasText: `"id": ${id}` }).first().waitFor({ state: "attached" });
  }
  await at(`/bigs?number=eq.${BIG[0]}`);
  await until("one row", async () => JSON.stringify(await page.locator(".grid tbody tr:has(th)").allInnerTexts()) === JSON.stringify([`${BIG[0]}\tedited ${BIG[0]}\t${BIG[0]}`]));
  await page.locator(".badge", { hasText: "live" }).waitFor();
  await server.send("PATCH", `/bigs/${BIG[0]}`, { name: "live" });
  await page.locator("td.flash", { hasText: "live" }).waitFor();
  assert.equal(await page.locator(".grid tbody tr:has(th) td").nth(1).textContent(), BIG[0]);

  const before = row("cr");
  await at("/kinds/cr");
  assert.deepEqual([await control("whole").inputValue(), await control("amount").inputValue()], ["9007199254740993", "1.500"]);
  await control("whole").fill("9007199254740995");
  await save();
  assert.deepEqual(await changed("cr", "whole", before), ["integer", "9007199254740995"]);
  const whole = row("cr");
  await control("doc").fill('{"n": 9007199254740995, "d": [1.5, {"x": null}], "s": "a"}');
  await save();
  const [, doc] = await changed("cr", "doc", whole);
  assert.match(doc, /"n":9007199254740995[,}]/);
  assert.match(doc, /"x":null/);
  await until("shown", async () => (await control("doc").inputValue()).includes("9007199254740995"));
});

test("what is no JSON is refused beside its field, and nothing is sent", async () => {
  const before = row("long");
  await at("/kinds/long");
  for (const wrong of ["{a: 1}", "abc", "", '{"a": 1, "a": 2}', "[1,]"]) {
    await control("other").fill(`beside ${wrong}`);
    await control("doc").fill(wrong);
    const bodies = await sent(async () => {
      await save();
      await page.locator(".field", { has: control("doc") }).getByText("This is no JSON").waitFor();
    });
    assert.deepEqual(bodies, []);
  }
  await shot(page, "invalid-json");
  await accessible(page);
  // A null within an object is something that a change cannot say.
  await control("doc").fill('{"s": null}');
  await save();
  await page.locator(".field", { has: control("doc") }).getByText("cannot make the member \"s\" null").waitFor();
  assert.deepEqual(row("long"), before);
  // A text stays a text, and members that are taken away are gone.
  await control("other").fill("plain");
  await control("doc").fill('"{}"');
  await at("/");
  await at("/kinds/long");
  assert.equal(await control("anything").inputValue(), '"null"');
  await control("doc").fill('{"s": "null", "d": []}');
  await save();
  assert.deepEqual(JSON.parse((await changed("long", "doc", before))[1]), { s: "null", d: [] });
  const then = row("long");
  await until("shown", async () => !(await control("doc").inputValue()).includes('"n"'));
  await control("doc").fill('"null"');
  await save();
  assert.deepEqual(await changed("long", "doc", then), ["text", '"null"']);
});

test("rows with any id are opened from the list, edited and found again", async () => {
  await at("/odd");
  const links = page.locator(".grid tbody th a");
  await until("all rows", async () => (await links.count()) === ODD.length);
  const order = inFile("SELECT id FROM odd ORDER BY rowid").map(([[, id]]) => id);
  for (const id of ODD) {
    await at("/odd");
    await until("all rows", async () => (await links.count()) === ODD.length);
    const ids = await server.send("GET", "/odd?select=id");
    assert.equal(ids.length, order.length);
    await links.nth(ids.findIndex((each) => each.id === id)).click();
    await control("é").fill(`edited ${id}`);
    await save();
    await until(`${id} is written`, () => inFile("SELECT é FROM odd WHERE id = ?", [id])[0][0][1] === `edited ${id}`);
    await page.getByText("confirmed").first().waitFor();
    await page.locator(".events").getByText(`é = edited ${id}`).first().waitFor();
    // The place is kept, and leads there again.
    await page.reload();
    await until("the same row", async () => (await control("é").inputValue()) === `edited ${id}`);
  }
  assert.equal(inFile("SELECT count(*) FROM odd WHERE é LIKE 'edited %'")[0][0][1], `${ODD.length}`);
  // Two people, where no path has the row.
  await at("/odd/_row?id=..");
  await control("é").fill("mine");
  await server.send("PATCH", "/odd?id=eq..", { é: "not this row" });
  await server.send("PATCH", "/odd?id=eq...", { é: "theirs" });
  await save();
  await page.getByText("Somebody changed this row meanwhile").waitFor();
  await page.getByRole("button", { name: "Save mine over it" }).click();
  await until("written", () => inFile("SELECT é FROM odd WHERE id = '..'")[0][0][1] === "mine");
  await page.getByRole("button", { name: "Delete", exact: true }).click();
  await page.getByRole("button", { name: "Delete this row" }).click();
  await until("gone", () => inFile("SELECT count(*) FROM odd WHERE id = '..'")[0][0][1] === "0");
});

test("columns with any name are chosen, sorted by and filtered", async () => {
  await at("/odd");
  await page.locator(".badge", { hasText: "live" }).waitFor();
  const heads = () => page.locator(".grid thead tr").first().locator("th").allTextContents();
  assert.deepEqual(await heads(), ["id", ...NAMES]);
  await page.getByText(/^Columns/).click();
  const left = [...NAMES];
  for (const gone of ["a b", "limit"]) {
    await page.locator(".menu label", { hasText: gone }).getByRole("checkbox").uncheck();
    left.splice(left.indexOf(gone), 1);
    await until(`without ${gone}`, async () => JSON.stringify(await heads()) === JSON.stringify(["id", ...left]));
  }
  const values = () => page.locator(".grid tbody tr:has(th)").evaluateAll((rows) => rows.map((row) => [...row.cells].slice(1).map((cell) => cell.textContent)));
  await until("every column has its cells", async () => (await values()).every((cells) => cells.every((cell) => cell !== "")));
  await page.keyboard.press("Escape");
  for (const column of left.filter((each) => each !== "é")) {
    await at("/odd");
    await page.getByLabel(`Filter ${column}`, { exact: true }).fill("of a/b");
    await page.getByLabel(`Filter ${column}`, { exact: true }).press("Enter");
    await page.getByRole("button", { name: column, exact: true }).click();
    await page.getByRole("button", { name: `${column} ↑`, exact: true }).waitFor();
    await until(`one row by ${column}`, async () => (await values()).length === 1 && (await values())[0][NAMES.indexOf(column)] === `${column} of a/b`);
    await page.locator(".badge", { hasText: "live" }).waitFor();
  }
});

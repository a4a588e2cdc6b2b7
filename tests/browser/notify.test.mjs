// Notifications in the explorer: what a receiver has not taken is seen with its reason, and sent again.

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { after, before, beforeEach, test } from "node:test";
import { accessible, Server, suite, until } from "./harness.mjs";

process.env.NOTIFY_SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
let status = 503;
const taken = [];
const receiver = createServer(async (request, response) => {
  let text = "";
  for await (const piece of request) text += piece;
  if (status < 300) taken.push(JSON.parse(text));
  response.writeHead(status).end(status < 300 ? "" : "closed for today");
});

let server;
let page;
before(async () => {
  receiver.listen(0, "127.0.0.1");
  await once(receiver, "listening");
});
after(() => receiver.close());
const notify = (text) => `${text}
[notify.shelf]
dio = "products"
url = "http://127.0.0.1:${receiver.address().port}/hooks"
secrets = ["env:NOTIFY_SECRET"]
retry = ["1h"]
`;
const own = suite(() => new Server(notify), 60_000);
beforeEach(() => ({ server, page } = own));

test("a delivery that was not taken is shown with its reason, and sent again", async () => {
  await server.send("PATCH", "/products/rye", { price: 744 });
  await page.goto(`${server.url}/#/`);
  await page.getByRole("link", { name: "Notifications" }).click();
  await page.getByText("closed for today").waitFor();
  await page.getByRole("link", { name: "shelf" }).click();
  await page.locator("td .badge", { hasText: "pending" }).waitFor();
  await accessible(page);
  await page.locator("td button.link").first().click();
  await page.getByRole("region", { name: "Message" }).getByText("products.changed").waitFor();
  status = 204;
  await page.getByRole("button", { name: "Send again" }).click();
  await page.locator("td .badge", { hasText: "delivered" }).waitFor();
  await until("it has arrived", () => taken.length === 1);
  assert.equal(taken[0].data.record.price, 744);
  await page.getByLabel("State").selectOption("failed");
  await page.getByText("Nothing was sent.").waitFor();
});

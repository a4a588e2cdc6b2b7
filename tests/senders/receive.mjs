// A receiver of notifications that verifies them with the libraries of Standard Webhooks and Svix: receive.mjs SECRET. Prints its port.
import { createServer } from "node:http";
import { Webhook as Standard } from "standardwebhooks";
import { Webhook as Svix } from "svix";

const secret = process.argv[2];
const server = createServer(async (request, response) => {
  const pieces = [];
  for await (const piece of request) pieces.push(piece);
  const body = Buffer.concat(pieces).toString();
  const said = [];
  for (const Webhook of [Standard, Svix]) {
    new Webhook(secret).verify(body, request.headers);
    said.push(JSON.parse(body).type);
    try {
      new Webhook(secret).verify(`${body} `, request.headers);
      said.push("forged");
    } catch {
      // As it should be.
    }
  }
  console.log("verified", ...said);
  response.writeHead(204).end();
});
server.listen(0, "127.0.0.1", () => console.log(`port ${server.address().port}`));

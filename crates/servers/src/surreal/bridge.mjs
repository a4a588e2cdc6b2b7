// SurrealDB's engine, in this process, behind the WebSocket of the real server: path /rpc, subprotocol `cbor`. Requests and answers
// are passed on as they are, apart from the session, of which each connection has one of its own.
// node bridge.mjs MODULES PORT STORE PASSWORD
import { createRequire } from "node:module";
import { createServer } from "node:http";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [modules, port, store, password] = process.argv.slice(2);
const require = createRequire(join(modules, "package.json"));
const { WebSocketServer } = require("ws");
const { CborCodec } = await import(pathToFileURL(require.resolve("surrealdb")).href.replace(/\.c?js$/, ".mjs"));
const { SurrealNodeEngine } = engine();
const codec = new CborCodec({});

// The package exports its driver for JavaScript only; the engine is a file beside it.
function engine() {
  const folder = join(modules, "node_modules/@surrealdb/node/dist");
  const libc = process.report.getReport().header.glibcVersionRuntime ? "gnu" : "musl";
  const system = process.platform === "linux" ? `linux-${process.arch}-${libc}` : `${process.platform}-${process.arch}`;
  return require(join(folder, `surrealdb-node.${system}.node`));
}

const database = await SurrealNodeEngine.connect(store, {});
const plain = (session, method, params = []) => codec.encode({ id: 0, method, params, session });
const admin = crypto.randomUUID();
await database.execute(plain(admin, "attach"));
await database.execute(plain(admin, "query", [`DEFINE USER IF NOT EXISTS root ON ROOT PASSWORD "${password}" ROLES OWNER`]));

// A map with one more member, the session: tag 37 with 16 bytes.
function withSession(bytes, session) {
  const member = Buffer.concat([Buffer.from([0x67]), Buffer.from("session"), Buffer.from([0xd8, 37, 0x50]),
    Buffer.from(session.replaceAll("-", ""), "hex")]);
  return Buffer.concat([Buffer.from([bytes[0] + 1]), bytes.subarray(1), member]);
}

const anonymous = new Set(["signin", "authenticate", "ping", "version", "use"]);
const live = new Map();
// As the server: POST /sql runs statements. The tests' own, so without a login.
const http = createServer(async (request, response) => {
  if (request.url !== "/sql") return response.writeHead(404).end();
  let text = "";
  for await (const part of request) text += part;
  const session = crypto.randomUUID();
  const { "surreal-ns": namespace, "surreal-db": name } = request.headers;
  let answer;
  try {
    await database.execute(plain(session, "attach"));
    if (name) await database.execute(plain(session, "use", [namespace, name]));
    answer = codec.decode(await database.execute(plain(session, "query", [text])));
    await database.execute(plain(session, "detach"));
  } catch (error) {
    answer = { error: { message: String(error) } };
  }
  const json = JSON.stringify(answer, (_, value) => (typeof value === "bigint" ? Number(value) : value));
  response.writeHead(200, { "content-length": Buffer.byteLength(json), connection: "close" }).end(json);
});
const sockets = new WebSocketServer({ server: http, path: "/rpc", maxPayload: 1 << 30,
  handleProtocols: (offered) => offered.has("cbor") && "cbor" });

sockets.on("connection", async (socket) => {
  const session = crypto.randomUUID();
  let isKnown = false;
  // Nothing is passed on before the session exists.
  const attached = database.execute(plain(session, "attach"));
  socket.on("error", () => {});
  socket.on("close", async () => {
    for (const [id, owner] of live) if (owner === socket) live.delete(id);
    await attached;
    await database.execute(plain(session, "detach")).catch(() => {});
  });
  socket.on("message", async (bytes) => {
    await attached;
    const { id, method } = codec.decode(bytes);
    if (!isKnown && !anonymous.has(method)) {
      const message = "IAM error: Not enough permissions to perform this action";
      socket.send(codec.encode({ id, error: { code: -32002, kind: "NotAllowed", message } }));
      return;
    }
    let answer;
    try {
      answer = await database.execute(withSession(bytes, session));
    } catch (error) {
      socket.send(codec.encode({ id, error: { code: -32000, kind: "Internal", message: String(error) } }));
      return;
    }
    const ok = answerOf(answer);
    if (ok && (method === "signin" || method === "authenticate")) isKnown = true;
    if (ok && method === "query") note(ok.result, socket);
    socket.send(frame(id, answer));
  });
});

// The engine answers with the result itself; the server with a map of id and result.
function answerOf(answer) {
  const decoded = codec.decode(answer);
  return decoded && typeof decoded === "object" && "error" in decoded ? undefined : { result: decoded };
}

function frame(id, answer) {
  if (!answerOf(answer)) return withId(id, answer);
  return Buffer.concat([Buffer.from([0xa2, 0x62]), Buffer.from("id"), codec.encode(id), Buffer.from([0x66]), Buffer.from("result"),
    answer]);
}

// The map of an error, with the id.
function withId(id, answer) {
  return Buffer.concat([Buffer.from([answer[0] + 1]), Buffer.from(answer.subarray(1)), Buffer.from([0x62]), Buffer.from("id"),
    codec.encode(id)]);
}

function note(results, socket) {
  for (const { type, result } of Array.isArray(results) ? results : []) if (type === "live") live.set(String(result), socket);
}

(async () => {
  const notifications = await database.notifications();
  for (let told = await notifications.recv(); told !== null; told = await notifications.recv()) {
    const socket = live.get(String(codec.decode(told).id));
    if (socket) socket.send(Buffer.concat([Buffer.from([0xa1, 0x66]), Buffer.from("result"), told]));
  }
})();

http.on("error", (error) => {
  console.error(error.code === "EADDRINUSE" ? "Address already in use" : error);
  process.exit(1);
});
http.listen(Number(port), "127.0.0.1", () => console.log("ready"));

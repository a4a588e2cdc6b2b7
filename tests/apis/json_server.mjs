// A json-server, of version 0.17 or 1.
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { products } from "./common.mjs";
import { folder, get, serve } from "./harness.mjs";

export async function jsonServer(t, version, count) {
  const dir = folder(t);
  const isOld = version === 0;
  const file = join(dir, "db.json");
  writeFileSync(file, JSON.stringify({ products: products(count, isOld ? Number : String) }));
  mkdirSync(join(dir, "public"));
  const script = isOld ? "json-server-0/lib/cli/bin.js" : "json-server/lib/bin.js";
  const args = (port) => [join(import.meta.dirname, "..", "node_modules", script), "--port", port, "--host", "127.0.0.1", file];
  // In production it does not watch its file, where it would read its own changes again, too late.
  const options = { cwd: dir, env: { ...process.env, NODE_ENV: "production" } };
  const origin = await serve(t, "/products", process.execPath, args, options);
  const url = `${origin}/products`;
  return {
    url,
    rows: () => get(url),
    add: (body) => get(url, { method: "POST", body }),
    change: (id, body) => get(`${url}/${id}`, { method: "PATCH", body }),
    remove: (id) => get(`${url}/${id}`, { method: "DELETE" }),
  };
}

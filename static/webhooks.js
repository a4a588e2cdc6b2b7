/** What upstream systems have sent, and a form that sends as they would. */

import { badge, button, cell, field, h, link, panel, select, since, table, trouble } from "./dom.js";
import { every, read, segment, send } from "./session.js";

const KINDS = /** @type {Record<string, "good" | "bad" | "soft" | "busy">} */ ({ applied: "good", failed: "bad", undecodable: "bad", received: "busy" });
const SECONDS = 2;

/** @type {import("./explorer.js").Page} */
export async function webhooks(host) {
  const hooks = Object.entries((await read("/")).webhooks);
  const line = (/** @type {[string, any]} */ [name, { dio }]) =>
    h("tr", null,
      h("th", { scope: "row" }, link(name, `#/webhooks/${segment(name)}/deliveries`)),
      h("td", null, link(dio, `#/${segment(dio)}`)),
      h("td", null, h("code", null, `POST /webhooks/${name}`)));
  host.append(h("h1", null, "Webhooks"),
    hooks.length ? table("Webhooks", ["Webhook", "Feeds", "Address"], hooks.map(line)) : h("p", { class: "soft" }, "None are configured."));
}

/** @type {import("./explorer.js").Page} */
export async function deliveries(host, { parts: [, name], query }) {
  const path = `/webhooks/${segment(name)}`;
  const state = query.get("state") ?? "";
  const body = h("div", { "aria-live": "polite" });
  const detail = h("div", null);
  const go = () => {
    location.hash = `#${path}/deliveries${states.value && `?state=${states.value}`}`;
  };
  const choices = /** @type {[string, string][]} */ (["", "received", "applied", "failed", "undecodable"].map((each) => [each, each || "all"]));
  const states = select(choices, state, { "aria-label": "State", onchange: go });
  let shown = "";
  const update = async () => {
    try {
      const all = await read(`${path}/deliveries?limit=100${state && `&state=${state}`}`);
      const now = JSON.stringify(all);
      if (now === shown) return;
      shown = now;
      body.replaceChildren(all.length ? deliveryTable(all, open) : h("p", { class: "soft" }, "Nothing has come."));
    } catch (error) {
      shown = "";
      body.replaceChildren(trouble(error));
    }
  };
  /** @param {string} id */
  async function open(id) {
    try {
      const delivery = await read(`${path}/deliveries/${segment(id)}`);
      detail.replaceChildren(describe(delivery, async () => {
        await send("POST", `${path}/deliveries/${segment(id)}/replay`);
        await update();
        await open(id);
      }));
      detail.querySelector("h2")?.focus();
    } catch (error) {
      detail.replaceChildren(trouble(error));
    }
  }
  host.append(
    h("p", null, link("← Webhooks", "#/webhooks")),
    h("h1", null, `Deliveries of ${name}`),
    h("div", { class: "tools" }, states),
    body, detail, testForm(path, update));
  await update();
  return every(SECONDS, update);
}

/** @param {any[]} all @param {(id: string) => unknown} open */
function deliveryTable(all, open) {
  const line = (/** @type {any} */ delivery) =>
    h("tr", null,
      h("td", null, badge(delivery.state, KINDS[delivery.state] ?? "soft")),
      h("td", null, button(delivery.key ?? delivery.id, () => open(delivery.id), { class: "bare link" })),
      h("td", { title: delivery.received }, since(delivery.received)),
      h("td", null, effect(delivery.changes)),
      h("td", { class: "number" }, `${delivery.size} B`),
      h("td", { class: "why" }, delivery.detail ?? ""));
  return table("Deliveries", ["State", "Delivery", "Received", "Effect", "#Size", "Remarks"], all.map(line));
}

/** What a delivery has done, in words. @param {Record<string, number> | null} changes */
const effect = (changes) =>
  Object.entries(changes ?? {}).filter(([, count]) => count > 0).map(([what, count]) => `${count} ${what}`).join(", ") || "none";

/** @param {any} delivery @param {() => Promise<unknown>} replay */
function describe(delivery, replay) {
  const said = h("span", { role: "status" });
  const again = button("Replay", async () => {
    try {
      await replay();
    } catch (error) {
      said.replaceChildren(trouble(error));
    }
  }, { class: "primary" });
  const headers = delivery.headers.map((/** @type {any} */ { name, value }) => h("tr", null, h("th", { scope: "row" }, name), h("td", { class: "code" }, value)));
  const shown = panel(`Delivery ${delivery.key ?? delivery.id}`,
    h("p", null, badge(delivery.state, KINDS[delivery.state] ?? "soft"), ` ${effect(delivery.changes)}; tried ${delivery.attempts} times. `, delivery.detail ?? ""),
    h("p", { class: "actions" }, again, said),
    h("h3", null, "Body"),
    h("pre", { tabIndex: 0, "aria-label": "Body", role: "region" }, pretty(delivery.body ?? delivery.body_base64 ?? "")),
    h("h3", null, "Headers"),
    table("Headers", ["Name", "Value"], headers));
  shown.querySelector("h2").tabIndex = -1;
  return shown;
}

/** @param {string} text */
function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

/** @type {Record<string, (secret: string, body: string) => Promise<Record<string, string>>>} */
const PROOFS = {
  "Standard Webhooks": async (secret, body) => {
    const id = `msg_${crypto.randomUUID()}`;
    const time = String(Math.floor(Date.now() / 1000));
    const key = Uint8Array.from(atob(secret.replace(/^whsec_/, "")), (char) => char.charCodeAt(0));
    const signature = btoa(String.fromCharCode(...(await hmac(key, `${id}.${time}.${body}`))));
    return { "webhook-id": id, "webhook-timestamp": time, "webhook-signature": `v1,${signature}` };
  },
  GitHub: async (secret, body) => {
    const signature = await hmac(new TextEncoder().encode(secret), body);
    return { "X-Hub-Signature-256": `sha256=${Array.from(signature, (byte) => byte.toString(16).padStart(2, "0")).join("")}` };
  },
  "Bearer token": async (secret) => ({ Authorization: `Bearer ${secret}` }),
  nothing: async () => ({}),
};

/** @param {Uint8Array} key @param {string} text */
async function hmac(key, text) {
  const imported = await crypto.subtle.importKey("raw", /** @type {any} */ (key), { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
  return new Uint8Array(await crypto.subtle.sign("HMAC", imported, new TextEncoder().encode(text)));
}

/** @param {string} path @param {() => Promise<unknown>} update */
function testForm(path, update) {
  const proof = select(Object.keys(PROOFS).map((name) => [name, name]), "Standard Webhooks", {});
  const secret = h("input", { type: "password", autocomplete: "off", placeholder: "whsec_…" });
  const example = { op: "update", id: "ID", partial: true, new: { COLUMN: 1 } };
  const body = h("textarea", { rows: 4, class: "code", value: JSON.stringify(example), spellcheck: false });
  const said = h("div", { role: "status" });
  const onsubmit = async (/** @type {Event} */ event) => {
    event.preventDefault();
    try {
      const headers = await PROOFS[proof.value](secret.value, body.value);
      const answer = await send("POST", path, { body: body.value, headers: { "Content-Type": "application/json", ...headers } });
      said.replaceChildren(h("p", null, badge(answer.state ?? "answered", KINDS[answer.state] ?? "soft"), ` ${cell(answer)}`));
      await update();
    } catch (error) {
      said.replaceChildren(trouble(error));
    }
  };
  return h("form", { class: "panel fields", onsubmit },
    h("h2", null, "Send a test delivery"),
    field("Proof", proof), field("Secret", secret), field("Body", body),
    h("p", { class: "actions" }, button("Sign and send", () => {}, { type: "submit", class: "primary" })), said);
}

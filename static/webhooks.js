/** What upstream systems have sent, and a form that sends as they would. */

import { cell } from "./cells.js";
import { badge, button, field, h, link, panel, select, since, table, trouble } from "./dom.js";
import { own, parse, pretty } from "./json.js";
import { every, isUnknown, read, segment, send } from "./session.js";

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
  host.replaceChildren(h("h1", null, "Webhooks"),
    hooks.length ? table("Webhooks", ["Webhook", "Feeds", "Address"], hooks.map(line)) : h("p", { class: "soft" }, "None are configured."));
  return {};
}

/** @type {import("./explorer.js").Page} */
export async function deliveries(host, { parts: [, name], query }, failed) {
  const path = `/webhooks/${segment(name)}`;
  const dio = own((await read("/")).webhooks, name)?.dio ?? "";
  const body = h("div", { "aria-live": "polite" });
  const detail = h("div", null);
  const go = () => {
    location.hash = `#${path}/deliveries${states.value && `?state=${states.value}`}`;
  };
  const choices = /** @type {[string, string][]} */ (["", "received", "applied", "failed", "undecodable"].map((each) => [each, each || "all"]));
  const states = select(choices, "", { "aria-label": "State", onchange: go });
  let state = "";
  let shown = "";
  let turn = 0;
  let opened = 0;
  const update = async () => {
    turn += 1;
    const mine = turn;
    try {
      const all = await read(`${path}/deliveries?limit=100${state && `&state=${segment(state)}`}`);
      const now = JSON.stringify(all);
      if (mine !== turn || now === shown) return;
      shown = now;
      body.replaceChildren(all.length ? deliveryTable(all, open) : h("p", { class: "soft" }, "Nothing has come."));
    } catch (error) {
      if (mine !== turn) return;
      shown = "";
      if (isUnknown(error)) failed(error);
      else body.replaceChildren(trouble(error));
    }
  };
  /** @param {string} id */
  async function open(id) {
    opened += 1;
    const mine = opened;
    try {
      const delivery = await read(`${path}/deliveries/${segment(id)}`);
      if (mine !== opened) return;
      detail.replaceChildren(describe(delivery, dio, async () => {
        await send("POST", `${path}/deliveries/${segment(id)}/replay`);
        await update();
        await open(id);
      }));
      detail.querySelector("h2")?.focus();
    } catch (error) {
      if (mine === opened) detail.replaceChildren(trouble(error));
    }
  }
  const show = (/** @type {URLSearchParams} */ query) => {
    states.value = state = query.get("state") ?? "";
    return update();
  };
  host.replaceChildren(
    h("p", null, link("← Webhooks", "#/webhooks")),
    h("h1", null, `Deliveries of ${name}`),
    h("div", { class: "tools" }, states),
    body, detail, testForm(path, dio, update));
  // Not waited for: what is chosen before the first answer changes this page, and does not make it anew.
  show(query);
  return { end: every(SECONDS, update), change: (place) => show(place.query) };
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

/** @param {any} delivery @param {string} dio which it changes @param {() => Promise<unknown>} replay */
function describe(delivery, dio, replay) {
  const said = h("div", { role: "status" });
  const again = button("Replay", () => ask(said, `What it says is done again to the rows of ${dio}.`, "Replay it", replay));
  const headers = delivery.headers.map((/** @type {any} */ { name, value }) => h("tr", null, h("th", { scope: "row" }, name), h("td", { class: "code" }, value)));
  const shown = panel(`Delivery ${delivery.key ?? delivery.id}`,
    h("p", null, badge(delivery.state, KINDS[delivery.state] ?? "soft"), ` ${effect(delivery.changes)}; tried ${delivery.attempts} times. `, delivery.detail ?? ""),
    h("p", { class: "actions" }, again), said,
    h("h3", null, "Body"),
    h("pre", { tabIndex: 0, "aria-label": "Body", role: "region" }, readable(delivery.body ?? delivery.body_base64 ?? "")),
    h("h3", null, "Headers"),
    table("Headers", ["Name", "Value"], headers));
  shown.querySelector("h2").tabIndex = -1;
  return shown;
}

/**
 * Asks before something that changes rows, and says what is wrong when it fails.
 * @param {HTMLElement} place @param {string} what @param {string} yes @param {() => Promise<unknown>} act
 */
function ask(place, what, yes, act) {
  const sure = button(yes, async () => {
    place.replaceChildren();
    try {
      await act();
    } catch (error) {
      place.replaceChildren(trouble(error));
    }
  }, { class: "danger" });
  place.replaceChildren(h("p", null, what), h("p", { class: "actions" }, sure, button("Leave it", () => place.replaceChildren())));
  sure.focus();
}

/** @param {string} text */
function readable(text) {
  try {
    return pretty(parse(text, { strict: true }));
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

/** @param {string} path @param {string} dio which a delivery changes @param {() => Promise<unknown>} update */
function testForm(path, dio, update) {
  const proof = select(Object.keys(PROOFS).map((name) => [name, name]), "Standard Webhooks", {});
  const secret = h("input", { type: "password", autocomplete: "off", placeholder: "whsec_…" });
  const example = { op: "update", id: "ID", partial: true, new: { COLUMN: 1 } };
  const body = h("textarea", { rows: 4, class: "code", value: JSON.stringify(example), spellcheck: false });
  const said = h("div", { role: "status" });
  const deliver = async () => {
    const headers = await PROOFS[proof.value](secret.value, body.value);
    const answer = await send("POST", path, { body: body.value, headers: { "Content-Type": "application/json", ...headers } });
    said.replaceChildren(h("p", null, badge(answer.state ?? "answered", KINDS[answer.state] ?? "soft"), ` ${cell(answer)}`));
    await update();
  };
  const onsubmit = (/** @type {Event} */ event) => {
    event.preventDefault();
    ask(said, `This is no rehearsal: what the body says is done to the rows of ${dio}.`, "Send it", deliver);
  };
  return h("form", { class: "panel fields", onsubmit },
    h("h2", null, "Send a test delivery"),
    h("p", { class: "soft" }, `The server takes it as any other delivery: it changes the rows of ${dio}.`),
    field("Proof", proof), field("Secret", secret), field("Body", body),
    h("p", { class: "actions" }, button("Sign and send", () => {}, { type: "submit", class: "primary" })), said);
}

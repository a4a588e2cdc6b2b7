/** Notifications: what is sent to receivers, and what they have not taken. */

import { badge, button, h, link, panel, select, since, table, trouble } from "./dom.js";
import { pretty } from "./json.js";
import { every, isUnknown, read, segment, send } from "./session.js";

const KINDS = /** @type {Record<string, "good" | "bad" | "soft" | "busy">} */ ({
  active: "good", resting: "bad", full: "bad", disabled: "bad", delivered: "good", pending: "busy", failed: "bad",
});
const SECONDS = 2;

/** @type {import("./explorer.js").Page} */
export async function notifications(host, _, failed) {
  const body = h("div", { "aria-live": "polite" });
  const line = (/** @type {any} */ own) =>
    h("tr", null,
      h("th", { scope: "row" }, link(own.name, `#/_notify/${segment(own.name)}/deliveries`)),
      h("td", null, badge(own.state, KINDS[own.state] ?? "soft")),
      h("td", null, link(own.dio, `#/${segment(own.dio)}`)),
      h("td", null, h("code", null, own.url)),
      h("td", { class: "number" }, `${own.behind}`),
      h("td", { class: "number" }, `${own.waiting}`),
      h("td", { class: "why" }, own.detail ?? own.last_failure?.detail ?? ""));
  const update = refresher(body, failed, "/_notify", (all) =>
    all.length
      ? table("Notifications", ["Notification", "State", "Of", "Receiver", "#Behind", "#Waiting", "Remarks"], all.map(line))
      : h("p", { class: "soft" }, "None are configured."));
  host.replaceChildren(h("h1", null, "Notifications"), body);
  await update();
  return { end: every(SECONDS, update) };
}

/** @type {import("./explorer.js").Page} */
export async function notices(host, { parts: [, name], query }, failed) {
  const path = `/_notify/${segment(name)}`;
  const [body, detail, said] = [h("div", { "aria-live": "polite" }), h("div", null), h("div", { role: "status" })];
  const go = () => {
    location.hash = `#${path}/deliveries${states.value && `?state=${states.value}`}`;
  };
  const choices = /** @type {[string, string][]} */ (["", "pending", "failed", "delivered"].map((each) => [each, each || "all"]));
  const states = select(choices, "", { "aria-label": "State", onchange: go });
  let state = "";
  const update = refresher(body, failed, () => `${path}/deliveries?limit=100${state && `&state=${segment(state)}`}`, (all) =>
    all.length ? noticeTable(all, open) : h("p", { class: "soft" }, "Nothing was sent."));
  /** @param {string} id */
  async function open(id) {
    try {
      const notice = await read(`${path}/deliveries/${segment(id)}`);
      detail.replaceChildren(describe(notice, async () => {
        await send("POST", `${path}/deliveries/${segment(id)}/replay`);
        await update();
        await open(id);
      }));
      detail.querySelector("h2")?.focus();
    } catch (error) {
      detail.replaceChildren(trouble(error));
    }
  }
  const enable = button("Try the receiver now", () => attempt(said, async () => {
    await send("POST", `${path}/enable`);
    await update();
  }));
  const show = (/** @type {URLSearchParams} */ query) => {
    states.value = state = query.get("state") ?? "";
    return update();
  };
  host.replaceChildren(
    h("p", null, link("← Notifications", "#/_notify")),
    h("h1", null, `Deliveries of ${name}`),
    h("div", { class: "tools" }, states, enable), said, body, detail);
  // Not waited for: what is chosen before the first answer changes this page, and does not make it anew.
  show(query);
  return { end: every(SECONDS, update), change: (place) => show(place.query) };
}

/**
 * Gives what reads `path` and shows it in `body` if it has changed.
 * @param {HTMLElement} body @param {(error: unknown) => void} failed @param {string | (() => string)} path @param {(all: any[]) => HTMLElement} view
 */
function refresher(body, failed, path, view) {
  let [shown, turn] = ["", 0];
  return async () => {
    turn += 1;
    const mine = turn;
    try {
      const all = await read(typeof path === "string" ? path : path());
      const now = JSON.stringify(all);
      if (mine !== turn || now === shown) return;
      shown = now;
      body.replaceChildren(view(all));
    } catch (error) {
      if (mine !== turn) return;
      shown = "";
      if (isUnknown(error)) failed(error);
      else body.replaceChildren(trouble(error));
    }
  };
}

/** @param {any[]} all @param {(id: string) => unknown} open */
function noticeTable(all, open) {
  const line = (/** @type {any} */ notice) =>
    h("tr", null,
      h("td", null, badge(notice.state, KINDS[notice.state] ?? "soft")),
      h("td", null, button(notice.key ?? notice.id, () => open(notice.id), { class: "bare link" })),
      h("td", null, notice.row ?? ""),
      h("td", { title: notice.at }, since(notice.at)),
      h("td", { class: "number" }, `${notice.attempts}`),
      h("td", { class: "why" }, notice.detail ?? ""));
  return table("Deliveries", ["State", "Delivery", "Row", "Event", "#Attempts", "Remarks"], all.map(line));
}

/** @param {any} notice @param {() => Promise<unknown>} replay */
function describe(notice, replay) {
  const said = h("div", { role: "status" });
  const shown = panel(`Delivery ${notice.key ?? notice.id}`,
    h("p", null, badge(notice.state, KINDS[notice.state] ?? "soft"), ` to ${notice.url}; tried ${notice.attempts} times. `, notice.detail ?? ""),
    h("p", { class: "actions" }, button("Send again", () => attempt(said, replay))), said,
    h("h3", null, "Message"),
    h("pre", { tabIndex: 0, "aria-label": "Message", role: "region" }, pretty(notice.message)));
  shown.querySelector("h2").tabIndex = -1;
  return shown;
}

/** Acts, and says what is wrong when it fails. @param {HTMLElement} place @param {() => Promise<unknown>} act */
async function attempt(place, act) {
  place.replaceChildren();
  try {
    await act();
  } catch (error) {
    place.replaceChildren(trouble(error));
  }
}

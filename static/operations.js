/** The writes that were accepted: pending, confirmed, failed, and those that wait for a person. */

import { button, h, select, trouble } from "./dom.js";
import { operationTable } from "./record.js";
import { every, isUnknown, namesWith, read, segment, send } from "./session.js";

const SECONDS = 2;
const STATES = /** @type {[string, string][]} */ ([
  ["", "all"], ["queued,running,unknown", "pending"], ["parked", "parked"], ["failed", "failed"], ["applied", "confirmed"], ["discarded", "discarded"],
]);

/** @type {import("./explorer.js").Page} */
export async function operations(host, { query }, failed, rights) {
  const names = Object.keys(rights.resources);
  const body = h("div", { "aria-live": "polite" });
  const said = h("div", null);
  const go = () => {
    const next = Object.entries({ state: states.value, dio: dios.value }).filter(([, value]) => value);
    location.hash = `#/operations?${next.map(([name, value]) => `${name}=${segment(value)}`).join("&")}`;
  };
  const states = select(STATES, "", { "aria-label": "State", onchange: go });
  const dios = select([["", "every resource"], .../** @type {[string, string][]} */ (names.map((name) => [name, name]))], "", { "aria-label": "Resource", onchange: go });
  let state = "";
  let dio = "";
  let shown = "";
  let turn = 0;
  const update = async (/** @type {boolean} */ anew) => {
    turn += 1;
    const mine = turn;
    try {
      const all = await read(`/operations?limit=200${state && `&state=${segment(state)}`}${dio && `&dio=${segment(dio)}`}`);
      const now = JSON.stringify(all);
      // What has the focus is not taken away for nothing; a later question has a newer answer.
      if (mine !== turn || (now === shown && !anew)) return;
      shown = now;
      body.replaceChildren(all.length ? operationTable(all, rights, () => update(true), true) : h("p", { class: "soft" }, "There are none."));
    } catch (error) {
      if (mine !== turn) return;
      shown = "";
      if (isUnknown(error)) failed(error);
      else body.replaceChildren(trouble(error));
    }
  };
  const retryAll = button("Retry all parked", async () => {
    try {
      const done = await send("POST", `/operations/_retry?state=parked${dio && `&dio=${segment(dio)}`}`);
      said.replaceChildren(h("p", { class: "soft", role: "status" }, `${done.length} are tried again.`));
      await update(true);
    } catch (error) {
      said.replaceChildren(trouble(error));
    }
  });
  const show = (/** @type {URLSearchParams} */ query) => {
    states.value = state = query.get("state") ?? "";
    dios.value = dio = query.get("dio") ?? "";
    return update(true);
  };
  host.replaceChildren(h("h1", null, "Operations"), h("div", { class: "tools" }, states, dios, h("div", { class: "actions" }, namesWith(rights, "operations").length > 0 && retryAll)), said, body);
  // Not waited for: what is chosen before the first answer changes this page, and does not make it anew.
  show(query);
  return { end: every(SECONDS, () => update(false)), change: (place) => show(place.query) };
}

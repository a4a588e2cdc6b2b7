/** The events of a resource as they happen: filtered, paused, taken up from a position. */

import { subscribe } from "./diorama.js";
import { badge, button, field, h, select } from "./dom.js";
import { readable } from "./query.js";
import { eventLine } from "./record.js";
import { at, options, read, segment } from "./session.js";

/** Events that the page keeps. */
const MOST = 500;

/** @type {import("./explorer.js").Page} */
export async function events(host, { parts, query }) {
  const names = Object.keys((await read("/")).resources);
  const name = parts[0] === "events" ? names[0] : parts[0];
  const filter = new URLSearchParams(query);
  filter.delete("since");
  let subscription = /** @type {ReturnType<typeof subscribe> | undefined} */ (undefined);

  const state = h("span", null);
  const place = h("output", { class: "code" });
  const lines = h("ol", { class: "events" });
  const which = select(names.map((each) => [each, each]), name, {});
  const words = h("input", { class: "code", value: readable(filter), placeholder: "price=lt.300&ops=insert,delete", spellcheck: false, autocapitalize: "off" });
  const from = h("input", { class: "code", value: query.get("since") ?? "", placeholder: "now", spellcheck: false, autocapitalize: "off", list: "positions" });
  const toggle = button("Pause", () => (subscription ? pause() : follow(from.value || place.textContent)));
  const onsubmit = (/** @type {Event} */ event) => {
    event.preventDefault();
    const next = new URLSearchParams(words.value);
    if (from.value) next.set("since", from.value);
    const text = readable(next);
    const target = `#/${segment(which.value)}/events${text && `?${text}`}`;
    if (target === location.hash) window.dispatchEvent(new HashChangeEvent("hashchange"));
    else location.hash = target;
  };
  host.append(
    h("div", { class: "title" }, h("h1", null, `Events of ${name}`), h("p", null, state, " at ", place)),
    h("form", { class: "tools", onsubmit },
      field("Resource", which),
      h("div", { class: "wide" }, field("Filter", words)),
      field("From position", from),
      h("datalist", { id: "positions" }, ["now", "earliest"].map((value) => h("option", { value }))),
      h("div", { class: "actions" }, button("Follow", () => {}, { type: "submit", class: "primary" }), toggle)),
    lines,
  );

  const show = (/** @type {string} */ word, /** @type {"good" | "busy" | "soft"} */ kind) => state.replaceChildren(badge(word, kind));

  /** @param {string} since */
  function follow(since) {
    toggle.textContent = "Pause";
    subscription = subscribe(at(`/${segment(name)}`), filter, {
      ...options(),
      since: since || "now",
      onFrame(frame, position) {
        place.textContent = position;
        const isEvent = /^[A-Z]/.test(frame.type);
        if (!isEvent && frame.type !== "reset") return;
        const item = isEvent ? eventLine(frame) : h("li", null, badge("reset", "bad"), ` ${frame.reason}: events are missing here`);
        lines.prepend(item);
        while (lines.children.length > MOST) lines.lastChild?.remove();
      },
      onState: ({ status, transport }) => {
        if (status !== "closed") show(status, status === "live" ? "good" : "busy");
        state.title = transport ?? "";
      },
    });
  }

  function pause() {
    subscription?.close();
    subscription = undefined;
    from.value = "";
    toggle.textContent = "Resume";
    show("paused", "soft");
  }

  follow(query.get("since") ?? "now");
  return () => subscription?.close();
}

/** The events of a resource as they happen: filtered, paused, taken up from a position. */

import { Problem, subscribe } from "./diorama.js";
import { badge, button, failure, field, h, select, trouble } from "./dom.js";
import { readable } from "./query.js";
import { eventLine } from "./record.js";
import { at, isUnknown, namesWith, options, segment } from "./session.js";
import { signIn } from "./sign-in.js";

/** Events that the page keeps. */
const MOST = 500;

/** @type {import("./explorer.js").Page} */
export async function events(host, { parts, query }, failed, rights) {
  const names = namesWith(rights, "events");
  const name = parts[0] === "events" ? names[0] : parts[0];
  if (name === undefined) {
    host.replaceChildren(h("h1", null, "Events"), h("p", { class: "soft" }, "You may follow no resource."));
    return {};
  }
  let filter = new URLSearchParams();
  let subscription = /** @type {ReturnType<typeof subscribe> | undefined} */ (undefined);

  const state = h("span", null);
  const place = h("output", { class: "code" });
  const problem = h("div", null);
  const lines = h("ol", { class: "events" });
  const which = select(names.map((each) => [each, each]), name, {});
  // What is written here is followed when the button is pressed; the URL says what is followed.
  const words = h("input", { class: "code", placeholder: "price=lt.300&ops=insert,delete", spellcheck: false, autocapitalize: "off" });
  const from = h("input", { class: "code", placeholder: "now", spellcheck: false, autocapitalize: "off", list: "positions" });
  const toggle = button("Pause", () => (subscription ? pause() : follow(from.value || place.textContent)));
  const onsubmit = (/** @type {Event} */ event) => {
    event.preventDefault();
    const next = new URLSearchParams(words.value);
    if (from.value) next.set("since", from.value);
    const text = readable(next);
    const before = location.hash;
    location.hash = `#/${segment(which.value)}/events${text && `?${text}`}`;
    if (location.hash === before) window.dispatchEvent(new HashChangeEvent("hashchange"));
  };
  host.replaceChildren(
    h("div", { class: "title" }, h("h1", null, `Events of ${name}`), h("p", null, state, " at ", place)),
    h("form", { class: "tools", onsubmit },
      field("Resource", which),
      h("div", { class: "wide" }, field("Filter", words)),
      field("From position", from),
      h("datalist", { id: "positions" }, ["now", "earliest"].map((value) => h("option", { value }))),
      h("div", { class: "actions" }, button("Follow", () => {}, { type: "submit", class: "primary" }), toggle)),
    problem, lines,
  );

  const show = (/** @type {string} */ word, /** @type {"good" | "bad" | "busy" | "soft"} */ kind) => state.replaceChildren(badge(word, kind));

  /** @param {string} since */
  function follow(since) {
    subscription?.close();
    toggle.textContent = "Pause";
    const mine = subscribe(at(`/${segment(name)}`), filter, {
      ...options(),
      renew: signIn,
      since: since || "now",
      onFrame(frame, position) {
        if (subscription !== mine) return;
        place.textContent = position;
        const isEvent = /^[A-Z]/.test(frame.type);
        if (!isEvent && frame.type !== "reset") return;
        const item = isEvent ? eventLine(frame) : h("li", null, badge("reset", "bad"), ` ${frame.reason}: events are missing here`);
        lines.prepend(item);
        while (lines.children.length > MOST) lines.lastChild?.remove();
      },
      onState({ status, transport, error }) {
        if (status === "closed" || (subscription && subscription !== mine)) return;
        if (status === "failed" && (isUnknown(error) || error.close)) return failed(error);
        show(status, status === "live" ? "good" : status === "failed" ? "bad" : "busy");
        state.title = transport ?? "";
        // Only the transports that read an answer can say why.
        if (status === "live") problem.replaceChildren();
        else if (error instanceof Problem && !isUnknown(error)) problem.replaceChildren(status === "failed" ? trouble(error) : failure(error, []));
      },
    });
    subscription = mine;
  }

  function pause() {
    subscription?.close();
    subscription = undefined;
    from.value = "";
    toggle.textContent = "Resume";
    show("paused", "soft");
  }

  /** Follows what a query says. @param {URLSearchParams} query */
  function begin(query) {
    filter = new URLSearchParams(query);
    filter.delete("since");
    if (document.activeElement !== words) words.value = readable(filter);
    if (document.activeElement !== from) from.value = query.get("since") ?? "";
    problem.replaceChildren();
    lines.replaceChildren();
    follow(query.get("since") ?? "now");
  }

  begin(query);
  return { end: () => subscription?.close(), change: (place) => begin(place.query) };
}

/**
 * The explorer: which page is shown. A place is written as the API path that it shows, behind the `#`: `#/products?price=lt.300`.
 *
 * A page is a function that fills an element once it has what it needs. It may give what ends it, and what shows another place of the
 * same path, so that its controls stay as they are. What it gives to `failed` ends it, as if it had thrown that.
 * @typedef {{ parts: string[], query: URLSearchParams }} Place
 * @typedef {{ end?: () => void, change?: (place: Place) => void }} Shown
 * @typedef {(host: HTMLElement, place: Place, failed: (error: unknown) => void) => Promise<Shown>} Page
 */

import { backoff } from "./diorama.js";
import { DOCUMENTS, documents } from "./documents.js";
import { button, failure, field, h, link, trouble } from "./dom.js";
import { events } from "./events.js";
import { operations } from "./operations.js";
import { overview } from "./overview.js";
import { parsePlace } from "./query.js";
import { record } from "./record.js";
import { resource } from "./resource.js";
import { base, hasToken, isPassing, isUnknown, keepToken, reasons } from "./session.js";
import { deliveries, webhooks } from "./webhooks.js";

const LINKS = [["Resources", "#/"], ["Events", "#/events"], ["Operations", "#/operations"], ["Webhooks", "#/webhooks"]];
let shown = /** @type {Shown} */ ({});
/** The path of what is shown; none while it is being read. */
let path = /** @type {string | undefined} */ (undefined);
let turn = 0;

/** @param {string[]} parts @returns {Page} */
function pageOf([first, second, third]) {
  if (!first) return overview;
  if (DOCUMENTS.includes(first)) return documents;
  if (first === "events" || second === "events") return events;
  if (first === "operations") return operations;
  if (first === "webhooks") return third === "deliveries" ? deliveries : webhooks;
  return second === undefined ? resource : record;
}

/** Shows the place that the URL says. */
function show() {
  const place = parsePlace(location.hash);
  const asked = JSON.stringify(place.parts);
  if (asked === path && shown.change) return shown.change(place);
  begin(place, asked);
}

/** @param {Place} place @param {string} asked */
async function begin(place, asked) {
  shown.end?.();
  shown = {};
  path = undefined;
  turn += 1;
  const mine = turn;
  const host = h("main", { id: "page", tabIndex: -1 });
  document.querySelector("main")?.replaceWith(host);
  document.title = [...place.parts.slice(0, 2), "Diorama"].join(" · ");
  for (const each of document.querySelectorAll("nav a")) {
    const target = each.getAttribute("href") ?? "";
    const current = target === `#/${place.parts[0] ?? ""}` || (target === "#/" && pageOf(place.parts) === resource);
    if (current) each.setAttribute("aria-current", "page");
    else each.removeAttribute("aria-current");
  }
  /** @param {unknown} error */
  const failed = (error) => {
    if (mine !== turn) return;
    shown.end?.();
    shown = {};
    path = undefined;
    turn += 1;
    if (isUnknown(error)) askForToken(host);
    else host.replaceChildren(trouble(error));
  };
  for (let failures = 0; mine === turn; failures += 1) {
    try {
      const given = await pageOf(place.parts)(host, place, failed);
      // Another page may have been asked for meanwhile.
      if (mine !== turn) return given.end?.();
      shown = given;
      path = asked;
      return;
    } catch (error) {
      if (mine !== turn) return;
      if (!isPassing(error)) return failed(error);
      const why = place.parts[0] ? await reasons(place.parts[0]) : [];
      if (mine !== turn) return;
      host.replaceChildren(failure(error, why));
      await backoff(failures);
    }
  }
}

/** @param {HTMLElement} host */
function askForToken(host) {
  const token = h("input", { type: "password", autocomplete: "off", required: true });
  const wrong = () => h("p", { class: "trouble", role: "alert" }, h("strong", null, "This token is wrong."), " The server does not know it.");
  // A server that was started anew may have other tokens.
  const said = h("div", null, hasToken() && wrong());
  const onsubmit = async (/** @type {Event} */ event) => {
    event.preventDefault();
    try {
      await keepToken(token.value);
    } catch (error) {
      said.replaceChildren(isUnknown(error) ? wrong() : trouble(error));
      token.select();
      return;
    }
    show();
  };
  host.replaceChildren(
    h("form", { class: "panel narrow", onsubmit },
      h("h1", null, "A token is required"),
      h("p", { class: "soft" }, "It is kept until this tab is closed."),
      field("Token", token), said,
      button("Go on", () => {}, { type: "submit", class: "primary" })),
  );
  token.focus();
}

document.body.classList.add("explorer");
document.querySelector("header")?.replaceChildren(
  link("Skip to the page", "#page", { class: "skip", onclick: skip }),
  link("Diorama", "#/", { class: "brand" }),
  h("nav", { "aria-label": "Pages" }, LINKS.map(([text, target]) => link(text, target))),
);
const footer = document.querySelector("footer");
footer?.classList.add("soft");
// A link carries no token: what needs one is shown by a page of the explorer.
for (const each of footer?.querySelectorAll("a") ?? []) {
  const name = each.href.slice(base.length + 1);
  if (DOCUMENTS.includes(name) || name === "operations") each.setAttribute("href", `#/${name}`);
}

function skip(/** @type {Event} */ event) {
  event.preventDefault();
  document.getElementById("page")?.focus();
}

window.addEventListener("hashchange", () => {
  const before = turn;
  show();
  // Whoever is in a control of a page that stays, stays there.
  if (turn !== before) document.getElementById("page")?.focus({ preventScroll: true });
});
show();

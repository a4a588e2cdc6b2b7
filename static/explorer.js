/**
 * The explorer: which page is shown. A place is written as the API path that it shows, behind the `#`: `#/products?price=lt.300`.
 *
 * A page is a function that fills an element and may give another one that ends it.
 * @typedef {{ parts: string[], query: URLSearchParams }} Place
 * @typedef {(host: HTMLElement, place: Place) => Promise<(() => void) | void>} Page
 */

import { Problem } from "./diorama.js";
import { button, field, h, link, trouble } from "./dom.js";
import { events } from "./events.js";
import { operations } from "./operations.js";
import { overview } from "./overview.js";
import { parsePlace } from "./query.js";
import { record } from "./record.js";
import { resource } from "./resource.js";
import { keepToken } from "./session.js";
import { deliveries, webhooks } from "./webhooks.js";

const LINKS = [["Resources", "#/"], ["Events", "#/events"], ["Operations", "#/operations"], ["Webhooks", "#/webhooks"]];
let end = () => {};
let turn = 0;

/** @param {string[]} parts @returns {Page} */
function pageOf([first, second, third]) {
  if (!first) return overview;
  if (first === "events" || second === "events") return events;
  if (first === "operations") return operations;
  if (first === "webhooks") return third === "deliveries" ? deliveries : webhooks;
  return second === undefined ? resource : record;
}

async function show() {
  end();
  end = () => {};
  turn += 1;
  const mine = turn;
  const place = parsePlace(location.hash);
  const host = h("main", { id: "page", tabIndex: -1 });
  document.querySelector("main")?.replaceWith(host);
  document.title = [...place.parts.slice(0, 2), "Diorama"].join(" · ");
  for (const each of document.querySelectorAll("nav a")) {
    const target = each.getAttribute("href") ?? "";
    const current = target === `#/${place.parts[0] ?? ""}` || (target === "#/" && pageOf(place.parts) === resource);
    if (current) each.setAttribute("aria-current", "page");
    else each.removeAttribute("aria-current");
  }
  try {
    const ended = await pageOf(place.parts)(host, place);
    // Another page may have been asked for meanwhile.
    if (ended && mine !== turn) ended();
    else if (ended) end = ended;
  } catch (error) {
    if (mine !== turn) return;
    if (error instanceof Problem && /** @type {any} */ (error).status === 401) askForToken(host);
    else host.append(trouble(error));
  }
}

/** @param {HTMLElement} host */
function askForToken(host) {
  const token = h("input", { type: "password", autocomplete: "off", required: true });
  const onsubmit = (/** @type {Event} */ event) => {
    event.preventDefault();
    keepToken(token.value);
    show();
  };
  host.replaceChildren(
    h("form", { class: "panel narrow", onsubmit },
      h("h1", null, "A token is required"),
      h("p", { class: "soft" }, "It is kept until this tab is closed."),
      field("Token", token),
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
document.querySelector("footer")?.classList.add("soft");

function skip(/** @type {Event} */ event) {
  event.preventDefault();
  document.getElementById("page")?.focus();
}

window.addEventListener("hashchange", () => {
  show();
  document.getElementById("page")?.focus({ preventScroll: true });
});
show();

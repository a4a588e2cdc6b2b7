/**
 * The explorer: which page is shown. A place is written as the API path that it shows, behind the `#`: `#/products?price=lt.300`.
 *
 * A page is a function that fills an element once it has what it needs. It may give what ends it, and what shows another place of the
 * same path, so that its controls stay as they are. What it gives to `failed` ends it, as if it had thrown that.
 * @typedef {{ parts: string[], query: URLSearchParams }} Place
 * @typedef {{ end?: () => void, change?: (place: Place) => void }} Shown
 * @typedef {import("./session.js").Rights} Rights
 * @typedef {(host: HTMLElement, place: Place, failed: (error: unknown) => void, rights: Rights) => Promise<Shown>} Page
 */

import { backoff } from "./diorama.js";
import { DOCUMENTS, documents } from "./documents.js";
import { button, failure, h, link, trouble } from "./dom.js";
import { events } from "./events.js";
import { notices, notifications } from "./notify.js";
import { operations } from "./operations.js";
import { overview } from "./overview.js";
import { parsePlace } from "./query.js";
import { record } from "./record.js";
import { resource } from "./resource.js";
import { base, endSession, isPassing, isUnknown, namesWith, reasons, rights } from "./session.js";
import { CALLER, isCancelled, pageIsOf, signIn, tellTabs } from "./sign-in.js";
import { deliveries, webhooks } from "./webhooks.js";

/** Pages, each with the actions one of which it needs. */
const LINKS = /** @type {[string, string, string[]][]} */ ([
  ["Resources", "#/", []],
  ["Events", "#/events", ["events"]],
  ["Operations", "#/operations", ["insert", "update", "delete", "operations"]],
  ["Webhooks", "#/webhooks", ["webhooks"]],
  ["Notifications", "#/_notify", ["webhooks"]],
]);
const nav = h("nav", { "aria-label": "Pages" });
const account = h("div", { class: "account" });
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
  if (first === "_notify") return third === "deliveries" ? notices : notifications;
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
  mark();
  /** @param {unknown} error */
  const failed = (error) => {
    if (mine !== turn) return;
    shown.end?.();
    shown = {};
    path = undefined;
    turn += 1;
    // Other access rules apply: the page is shown with the rights that the user has now.
    if (/** @type {any} */ (error)?.close === 4403) return renew();
    if (!isUnknown(error)) return host.replaceChildren(trouble(error));
    host.replaceChildren(...unknown());
    if (!isCancelled(error)) signIn(/** @type {any} */ (error)).then(show, () => {});
  };
  for (let failures = 0; mine === turn; failures += 1) {
    try {
      const own = await rights();
      if (mine !== turn) return;
      welcome(own);
      const given = await pageOf(place.parts)(host, place, failed, own);
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

/** Marks the link of the page that is shown. */
function mark() {
  const { parts } = parsePlace(location.hash);
  for (const each of nav.querySelectorAll("a")) {
    const target = each.getAttribute("href") ?? "";
    const current = target === `#/${parts[0] ?? ""}` || (target === "#/" && pageOf(parts) === resource);
    if (current) each.setAttribute("aria-current", "page");
    else each.removeAttribute("aria-current");
  }
}

/** What is shown to somebody who is not signed in. */
function unknown() {
  pageIsOf(null);
  nav.replaceChildren();
  account.replaceChildren();
  const again = () => signIn(new Error()).then(show, () => {});
  return [h("h1", null, "You are not signed in"), h("p", { class: "actions" }, button("Sign in", again, { class: "primary" }))];
}

/** Says who the user is, and leads to the pages that it may use. @param {Rights} rights */
function welcome(rights) {
  pageIsOf(rights.name);
  const { name, role, credentials, session } = rights;
  nav.replaceChildren(...LINKS.filter(([, , verbs]) => !verbs.length || namesWith(rights, ...verbs).length).map(([text, target]) => link(text, target)));
  mark();
  account.replaceChildren(...(credentials ? [
    h("span", { class: "soft" }, name ? `${name}, role ${role}` : "not signed in"),
    name ? session && button("Sign out", signOut) : button("Sign in", () => signIn(new Error()).then(renew, () => {})),
  ].filter(Boolean) : []));
  metrics?.toggleAttribute("hidden", !rights.everywhere.includes("admin"));
}

/** Shows the page anew, with the rights that the user has now. */
function renew() {
  shown.end?.();
  shown = {};
  path = undefined;
  show();
}

async function signOut() {
  // The page of the user ends before its session does.
  shown.end?.();
  shown = {};
  path = undefined;
  turn += 1;
  const host = document.getElementById("page");
  host?.replaceChildren();
  try {
    await endSession();
  } catch (error) {
    return host?.replaceChildren(trouble(error));
  }
  tellTabs();
}

document.body.classList.add("explorer");
document.querySelector("header")?.replaceChildren(
  link("Skip to the page", "#page", { class: "skip", onclick: skip }),
  link("Diorama", "#/", { class: "brand" }),
  nav,
  account,
);
const footer = document.querySelector("footer");
footer?.classList.add("soft");
const metrics = [...(footer?.querySelectorAll("li") ?? [])].find((item) => item.querySelector("a")?.href === `${base}/metrics`);
// The page shows documents with the rights of the session, and says why if there is none.
for (const each of footer?.querySelectorAll("a") ?? []) {
  const name = each.href.slice(base.length + 1);
  if (DOCUMENTS.includes(name) || name === "operations") each.setAttribute("href", `#/${name}`);
}

function skip(/** @type {Event} */ event) {
  event.preventDefault();
  document.getElementById("page")?.focus();
}

window.addEventListener(CALLER, renew);
window.addEventListener("hashchange", () => {
  const before = turn;
  show();
  // Whoever is in a control of a page that stays, stays there.
  if (turn !== before) document.getElementById("page")?.focus({ preventScroll: true });
});
show();

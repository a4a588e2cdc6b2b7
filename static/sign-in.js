/** The dialog that asks for a key or token. The page behind it stays, and goes on where it was once the same user is back. */

import { button, field, h, trouble } from "./dom.js";
import { beginSession, isUnknown, rights } from "./session.js";

/** Event of the window: another user, or nobody, is signed in. */
export const CALLER = "diorama-caller";
/** Other tabs have the same session. */
const tabs = new BroadcastChannel("diorama-caller");
tabs.onmessage = () => changed();

let dialog = /** @type {HTMLDialogElement | undefined} */ (undefined);
let asking = /** @type {Promise<void> | undefined} */ (undefined);
/** Name of the user whose page this is. */
let shown = /** @type {string | null | undefined} */ (undefined);

function changed() {
  // Somebody may have signed in in another tab.
  rights().then(() => dialog?.close(), () => {});
  window.dispatchEvent(new Event(CALLER));
}

/** Tells this tab and the others that another user is signed in, or nobody. */
export function tellTabs() {
  tabs.postMessage("changed");
  changed();
}

/** Names the user whose rows the page shows. @param {string | null} name */
export function pageIsOf(name) {
  shown = name;
}

/** Whether the user has closed the dialog. @param {any} error */
export const isCancelled = (error) => Boolean(error?.cancelled);

/**
 * Asks for a key or token until there is a session. Throws `problem` if the user closes the dialog, or if somebody else has signed in: then the
 * page is shown anew.
 * @param {Error} problem
 */
export function signIn(problem) {
  asking ??= ask(problem).finally(() => (asking = undefined));
  return asking;
}

/** @param {Error} problem */
async function ask(problem) {
  const before = shown;
  const { name } = await new Promise((done, failed) => open(problem, done, () => failed(Object.assign(problem, { cancelled: true }))));
  if (before === undefined || name === before) return;
  tellTabs();
  throw Object.assign(problem, { cancelled: true });
}

/** @param {Error} problem @param {(rights: import("./session.js").Rights) => void} done @param {() => void} cancel */
function open(problem, done, cancel) {
  const token = h("input", { type: "password", autocomplete: "off", required: true });
  const said = h("div", null);
  const onsubmit = async (/** @type {Event} */ event) => {
    event.preventDefault();
    try {
      await beginSession(token.value);
    } catch (error) {
      said.replaceChildren(isUnknown(error) ? wrong(error) : trouble(error));
      token.select();
      return;
    }
    try {
      done(await rights());
    } catch (error) {
      said.replaceChildren(isUnknown(error) ? noCookie() : trouble(error));
      return;
    }
    own.close();
  };
  const own = h("dialog", { class: "panel narrow", "aria-labelledby": "sign-in" },
    h("form", { onsubmit },
      h("h2", { id: "sign-in" }, "Sign in"),
      h("p", null, reason(problem)),
      field("Key or token", token),
      h("p", { class: "soft" }, "It is exchanged for a session of this browser, which ends when you sign out, with the token, or after twelve hours."),
      said,
      h("p", { class: "actions" },
        button("Sign in", () => {}, { type: "submit", class: "primary" }),
        button("Cancel", () => own.close()))));
  own.addEventListener("close", () => own.remove());
  own.addEventListener("close", cancel);
  dialog = own;
  document.body.append(own);
  own.showModal();
  token.focus();
}

/** @param {Error} problem */
function reason({ message }) {
  if (/expired|revoked/.test(message)) return `Sign in again: ${message}.`;
  // A restart of the server ends sessions, too.
  return shown || /ended/.test(message) ? "Sign in again: the session has ended." : "This server needs a key or a token.";
}

/** @param {any} error */
const wrong = (error) =>
  h("p", { class: "trouble", role: "alert" }, h("strong", null, "This key or token is not accepted:"), ` ${error.message}. ${error.code ? "" : error.hint}`);

const noCookie = () =>
  h("p", { class: "trouble", role: "alert" }, h("strong", null, "The browser has not kept the session."), " It seems to block cookies of this page.");

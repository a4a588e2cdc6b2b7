/** What the server says of itself, as it says it. A link cannot carry the token that this may need; the page can. */

import { button, h, link } from "./dom.js";
import { parse, pretty } from "./json.js";
import { at, every, isUnknown, text } from "./session.js";

export const DOCUMENTS = ["readyz", "metrics", "openapi.json", "asyncapi.json"];
const SECONDS = 2;

/** @type {import("./explorer.js").Page} */
export async function documents(host, { parts: [name] }, failed) {
  const said = h("span", { class: "soft", role: "status" });
  const shown = h("pre", { class: "document", tabIndex: 0, role: "region", "aria-label": `/${name}` });
  const save = link("Save", "#", { download: name === "metrics" ? "metrics.txt" : name });
  let got = "";
  const update = async () => {
    // While a resource is not ready the answer is 503, and says why.
    const now = await text(`/${name}`, name === "readyz" ? [503] : []);
    if (now === got) return;
    got = now;
    shown.textContent = readable(got);
    URL.revokeObjectURL(save.href);
    save.href = URL.createObjectURL(new Blob([got], { type: name === "metrics" ? "text/plain" : "application/json" }));
  };
  const copy = async () => {
    const copied = await navigator.clipboard?.writeText(got).then(() => true, () => false);
    said.textContent = copied ? "copied" : "The browser does not let the page copy it.";
  };
  await update();
  host.replaceChildren(
    h("h1", null, `/${name}`),
    h("p", { class: "actions" }, h("code", null, at(`/${name}`)), button("Copy", copy), save, said),
    shown);
  const again = async () => {
    try {
      await update();
      said.textContent = "";
    } catch (error) {
      if (isUnknown(error)) failed(error);
      else said.textContent = "The server cannot be reached; it is being tried again.";
    }
  };
  const end = name === "readyz" ? every(SECONDS, again) : () => {};
  return {
    end: () => {
      end();
      URL.revokeObjectURL(save.href);
    },
  };
}

/** @param {string} got */
function readable(got) {
  try {
    return pretty(parse(got));
  } catch {
    return got;
  }
}

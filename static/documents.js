/** What the server says of itself, as it says it. A link cannot carry the token that this may need; the page can. */

import { button, h, link } from "./dom.js";
import { parse, pretty } from "./json.js";
import { at, text } from "./session.js";

export const DOCUMENTS = ["readyz", "metrics", "openapi.json", "asyncapi.json"];

/** @type {import("./explorer.js").Page} */
export async function documents(host, { parts: [name] }) {
  // While a resource is not ready the answer is 503, and says why.
  const got = await text(`/${name}`, [503]);
  const said = h("span", { class: "soft", role: "status" });
  const copy = async () => {
    const copied = await navigator.clipboard?.writeText(got).then(() => true, () => false);
    said.textContent = copied ? "copied" : "The browser does not let the page copy it.";
  };
  const file = new Blob([got], { type: name === "metrics" ? "text/plain" : "application/json" });
  const url = URL.createObjectURL(file);
  host.replaceChildren(
    h("h1", null, `/${name}`),
    h("p", { class: "actions" },
      h("code", null, at(`/${name}`)), button("Copy", copy), link("Save", url, { download: name === "metrics" ? "metrics.txt" : name }), said),
    h("pre", { class: "document", tabIndex: 0, role: "region", "aria-label": `/${name}` }, readable(got)));
  return { end: () => URL.revokeObjectURL(url) };
}

/** @param {string} got */
function readable(got) {
  try {
    return pretty(parse(got));
  } catch {
    return got;
  }
}

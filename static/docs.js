/** The page at /docs: Swagger UI over this server's own document, with the session that the explorer has begun. */

const base = new URL("..", import.meta.url).href.replace(/\/$/, "");
const main = /** @type {HTMLElement} */ (document.querySelector("#api"));
/** Without TLS a browser does not say which page sends the session. */
const OWN = { "X-Requested-With": "diorama" };

const dark = matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", follow);
follow();

if (main.dataset.asks === "" || (await fetch(`${base}/openapi.json`, { headers: OWN })).ok) {
  main.replaceChildren();
  /** @type {any} */ (window).SwaggerUIBundle({
    domNode: main,
    url: `${base}/openapi.json`,
    deepLinking: true,
    defaultModelsExpandDepth: 0,
    // It would send the document to a server elsewhere.
    validatorUrl: null,
    /** @param {any} request */
    requestInterceptor(request) {
      if (request.loadSpec || !isSecureContext) Object.assign(request.headers, OWN);
      return request;
    },
    onComplete: () => document.querySelector("#servers")?.setAttribute("aria-label", "Server"),
  });
}

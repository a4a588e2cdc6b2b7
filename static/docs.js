/** The page at /docs: Swagger UI over this server's own document, with the token that the explorer has asked for. */

const base = new URL("..", import.meta.url).href.replace(/\/$/, "");
const main = /** @type {HTMLElement} */ (document.querySelector("#api"));
const token = sessionStorage.getItem("diorama.token");

const dark = matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", follow);
follow();

if (token || main.dataset.asks === "") {
  main.replaceChildren();
  const ui = /** @type {any} */ (window).SwaggerUIBundle({
    domNode: main,
    url: `${base}/openapi.json`,
    deepLinking: true,
    defaultModelsExpandDepth: 0,
    // It would send the document to a server elsewhere.
    validatorUrl: null,
    /** @param {any} request */
    requestInterceptor(request) {
      if (request.loadSpec && token) request.headers.Authorization = `Bearer ${token}`;
      return request;
    },
    onComplete() {
      if (token) ui.preauthorizeApiKey("bearer", token);
      document.querySelector("#servers")?.setAttribute("aria-label", "Server");
    },
  });
}

/** All resources: how they are, in words and numbers. */

import { list, Problem } from "./diorama.js";
import { ago, badge, h, link, number, table } from "./dom.js";
import { at, every, isUnknown, may, readiness, segment, text } from "./session.js";

const SECONDS = 2;
/** Moments that the plot of events shows. */
const MOMENTS = 40;
const HEADS = [["Resource"], ["Rows", "number"], ["Health"], ["Last refresh"], ["Queue", "number"], ["Subscribers", "number"], ["Events"]];

/** @type {import("./explorer.js").Page} */
export async function overview(host, place, failed, rights) {
  const names = Object.keys(rights.resources);
  // The health of resources and the metrics are for administrators.
  if (!rights.everywhere.includes("admin")) return own(host, rights, failed);
  const body = h("tbody", null);
  const news = h("p", { class: "soft", "aria-live": "polite" });
  const rates = new Map(names.map((name) => [name, new Rate()]));
  host.replaceChildren(
    h("h1", null, "Resources"),
    h("div", { class: "scroll", role: "region", "aria-label": "Resources", tabIndex: 0 },
      h("table", { class: "plain overview" },
        h("thead", null, h("tr", null, HEADS.map(([name, kind]) => h("th", { scope: "col", class: kind }, name)))),
        body)),
    news,
  );
  const update = async () => {
    try {
      const [ready, metrics] = await Promise.all([readiness(), text("/metrics").then(parseMetrics)]);
      const row = (/** @type {string} */ name) => describe(name, ready.dios[name], (metric) => metrics.get(`${metric} ${name}`) ?? 0, rates.get(name));
      body.replaceChildren(...names.map(row));
      news.textContent = ready.status === "ready" ? "" : `The server is ${ready.status}.`;
    } catch (error) {
      if (isUnknown(error)) failed(error);
      else if (error instanceof Problem) news.textContent = `The server says: ${error.message}`;
      else news.textContent = "The server cannot be reached; it is being tried again.";
    }
  };
  await update();
  return { end: every(SECONDS, update) };
}

/**
 * The resources of a user who is no administrator: what it sees of them, and may do.
 * @param {HTMLElement} host @param {import("./session.js").Rights} rights @param {(error: unknown) => void} failed
 */
async function own(host, rights, failed) {
  const names = Object.keys(rights.resources);
  const counts = new Map(names.map((name) => [name, h("td", { class: "number" })]));
  const line = (/** @type {string} */ name) =>
    h("tr", null,
      h("th", { scope: "row" }, link(name, `#/${segment(name)}`)), counts.get(name), h("td", null, rights.resources[name].can.join(", ")));
  host.replaceChildren(h("h1", null, "Resources"),
    names.length ? table("Resources", ["Resource", "#Rows", "You may"], names.map(line)) : h("p", { class: "soft" }, "You may use none of the resources."));
  const update = async () => {
    for (const name of names.filter((name) => may(rights, "read", name))) {
      const found = await list(at(`/${segment(name)}`), { limit: 1 }).catch((error) => error);
      if (isUnknown(found)) return failed(found);
      if (found.rows) counts.get(name).textContent = number(found.total);
    }
  };
  return { end: every(5 * SECONDS, update) };
}

/**
 * Samples of resources, by metric and resource.
 * @param {string} samples
 */
export function parseMetrics(samples) {
  const found = new Map();
  for (const [, metric, labels, value] of samples.matchAll(/^(\w+)\{([^}]*)\} (\S+)$/gm)) {
    const dio = labels.match(/\bdio="([^"]*)"/)?.[1];
    const key = `${metric} ${dio}`;
    if (dio && !labels.includes("le=")) found.set(key, (found.get(key) ?? 0) + Number(value));
  }
  return found;
}

/** @param {string} name @param {any} ready @param {(metric: string) => number} metric @param {Rate} [rate] */
function describe(name, ready, metric, rate) {
  const parked = metric("diorama_dio_parked_operations");
  const oldest = metric("diorama_dio_queue_oldest_seconds");
  const depth = metric("diorama_dio_queue_operations");
  const refreshes = metric("diorama_dio_refresh_duration_seconds_count");
  const took = metric("diorama_dio_refresh_duration_seconds_sum") / refreshes;
  const failing = metric("diorama_dio_refresh_failing") > 0;
  rate?.add(metric("diorama_dio_events_total"));
  const queue = [];
  if (depth > 0 && oldest >= 1) queue.push(h("span", { class: "sub" }, `oldest ${Math.round(oldest)} s`));
  if (parked > 0) queue.push(h("span", { class: "sub" }, link(`${parked} parked`, `#/operations?state=parked&dio=${segment(name)}`)));
  return h("tr", null,
    h("th", { scope: "row" }, link(name, `#/${segment(name)}`)),
    h("td", { class: "number" }, number(ready?.rows ?? 0)),
    h("td", null, health(ready)),
    h("td", null, failing ? badge("failed", "bad") : ago(ready?.age),
      refreshes > 0 && h("span", { class: "sub" }, `takes ${duration(took)}`)),
    h("td", { class: "number" }, number(depth), queue),
    h("td", { class: "number" }, number(metric("diorama_dio_sockets"))),
    h("td", null, h("a", { href: `#/${segment(name)}/events`, class: "rate" }, rate?.plot(), h("span", null, rate?.text()))));
}

/** @param {any} ready */
function health(ready) {
  if (!ready) return badge("unknown", "soft");
  const reasons = ready.reasons.map((/** @type {string} */ reason) => h("span", { class: "sub" }, reason));
  if (!ready.ready) return [badge("not ready", "bad"), reasons];
  return [reasons.length ? badge("look", "busy") : badge("fine", "good"), reasons];
}

const duration = (/** @type {number} */ seconds) => (seconds < 1 ? `${Math.max(1, Math.round(seconds * 1000))} ms` : `${seconds.toFixed(1)} s`);

/** Events per second, over the last moments. */
class Rate {
  /** @type {number[]} */ moments = [];
  /** @type {number | undefined} */ last;

  /** @param {number} total */
  add(total) {
    if (this.last !== undefined) this.moments.push(Math.max(0, total - this.last) / SECONDS);
    this.moments = this.moments.slice(-MOMENTS);
    this.last = total;
  }

  text() {
    const now = this.moments.at(-1) ?? 0;
    return `${now < 10 ? Number(now.toFixed(1)) : Math.round(now)}/s`;
  }

  plot() {
    const SVG = "http://www.w3.org/2000/svg";
    const most = Math.max(1, ...this.moments);
    const at = (/** @type {number} */ value, /** @type {number} */ x) => `${x + MOMENTS - this.moments.length},${20 - (value / most) * 18}`;
    const line = document.createElementNS(SVG, "polyline");
    line.setAttribute("points", this.moments.map(at).join(" "));
    const plot = document.createElementNS(SVG, "svg");
    plot.setAttribute("viewBox", `0 0 ${MOMENTS} 21`);
    plot.setAttribute("preserveAspectRatio", "none");
    plot.setAttribute("aria-hidden", "true");
    plot.append(line);
    return plot;
  }
}

// Signs deliveries with the senders' own JavaScript libraries: send.mjs URL. Their secrets are in the environment.
import { sign } from "@octokit/webhooks-methods";
import examples from "@octokit/webhooks-examples" with { type: "json" };
import { Webhook } from "standardwebhooks";

const [url] = process.argv.slice(2);
const wrong = [];
let deliveries = 0;

async function post(hook, body, headers) {
  const answer = await fetch(`${url}/webhooks/${hook}`, {
    method: "POST",
    body,
    headers: { "content-type": "application/json", ...headers },
  });
  deliveries += 1;
  return { status: answer.status, told: await answer.text() };
}

const check = (good, ...what) => good || wrong.push(what.map((part) => JSON.stringify(part)).join(" "));
const taken = ({ status, told }) => {
  const counts = JSON.parse(told);
  return status === 200 && (counts.applied || counts.unchanged || counts.deferred || counts.stale) > 0;
};

const row = JSON.stringify({ op: "update", id: "1", new: { id: 1, name: "Crème brûlée", price: 421 } });
const now = new Date();
const signed = {
  "webhook-id": "msg_js",
  "webhook-timestamp": String(Math.floor(now / 1000)),
  "webhook-signature": new Webhook(process.env.WHSEC).sign("msg_js", now, row),
};
const answer = await post("standard", row, signed);
check(taken(answer), "standard", answer);
check((await post("standard", `${row} `, signed)).status === 401, "a changed body is believed");

// Every example GitHub's users have collected, to hooks that are each about one kind of object.
const kinds = { issue: "issues", pull_request: "pull_request", release: "release", label: "label" };
for (const { name, examples: bodies } of examples) {
  for (const [number, example] of bodies.entries()) {
    const body = JSON.stringify(example);
    const headers = {
      "x-github-event": name,
      "x-hub-signature-256": await sign(process.env.GITHUB_SECRET, body),
    };
    for (const [kind, event] of Object.entries(kinds)) {
      const answer = await post(kind, body, { ...headers, "x-github-delivery": `${name}-${number}-${kind}` });
      const good = name === event ? taken(answer) : answer.status === 200 && (name === "ping" || !taken(answer));
      check(good, kind, name, number, answer);
    }
  }
}
const issue = examples.find(({ name }) => name === "issues").examples[0];
const form = `payload=${encodeURIComponent(JSON.stringify(issue))}`;
const inForm = {
  "content-type": "application/x-www-form-urlencoded",
  "x-github-event": "issues",
  "x-github-delivery": "form",
  "x-hub-signature-256": await sign(process.env.GITHUB_SECRET, form),
};
check(taken(await post("issue", form, inForm)), "a form is not understood");
const forged = { "x-github-event": "issues", "x-hub-signature-256": await sign("another", "{}") };
check((await post("issue", "{}", forged)).status === 401, "a foreign signature is believed");

console.log(wrong.join("\n") || `standardwebhooks and octokit (JavaScript): ${deliveries} deliveries as expected`);
process.exit(wrong.length > 0 ? 1 : 0);

// A browser's EventSource: it reconnects by itself, and misses nothing while the server was away.
import assert from "node:assert/strict";
import test from "node:test";
import { EventSource } from "eventsource";
import { withDemo } from "./server.mjs";

// Frames of a stream as they come; `until` waits for one that fits.
function listen(url) {
  const source = new EventSource(url);
  const frames = [];
  let told = () => {};
  source.onmessage = (message) => {
    frames.push(JSON.parse(message.data));
    told();
  };
  const until = async (fits) => {
    for (let at = 0; ; at++) {
      while (at >= frames.length) await new Promise((resolve) => (told = resolve));
      assert.notEqual(frames[at].type, "reset", "nothing is lost");
      if (fits(frames[at])) return frames[at];
    }
  };
  return { source, frames, until };
}

await withDemo(test, "eventsource", async (t, demo) => {
  const patch = async (id, status) => {
    const headers = { "content-type": "application/json" };
    const answer = await fetch(`${demo.url}/orders/${id}`, { method: "PATCH", headers, body: JSON.stringify({ status }) });
    assert.ok(answer.ok, await answer.text());
  };
  const { source, frames, until } = listen(`${demo.url}/orders/events`);
  t.after(() => source.close());

  const hello = await until((frame) => frame.type === "hello");
  await patch(1001, "before");
  await until((frame) => frame.record?.status === "before");

  await demo.stop();
  await until((frame) => frame.type === "bye");
  await demo.serve(new URL(demo.url).host);
  // The source waits a moment before it connects again: this happens while it is away.
  await patch(1001, "while it was away");
  await until((frame) => frame.record?.status === "while it was away");
  await patch(1001, "after");
  await until((frame) => frame.record?.status === "after");

  const again = frames.filter((frame) => frame.type === "hello").at(-1);
  assert.deepEqual([again.epoch, again.resumed], [hello.epoch, true]);
  const seen = frames.filter((frame) => frame.type === "RecordChanged" && frame.id === "1001").map((frame) => frame.record.status);
  assert.deepEqual(seen, ["before", "while it was away", "after"]);
  const seqs = frames.filter((frame) => frame.seq !== undefined && frame.type !== "hello").map((frame) => frame.seq);
  assert.deepEqual(seqs, [...new Set(seqs)].toSorted((a, b) => a - b), "each event once, in order");
});

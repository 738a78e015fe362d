import assert from "node:assert/strict";
import { test } from "node:test";
import { readEvents } from "../../minigen/serve/page/events.js";

const BYTES = new TextEncoder().encode('data: {"text":"né"}\n\ndata: {"text":"\\n\\n日"}\n\ndata: [DONE]\n\n');

/** Return a stream of the bytes, cut at some places. */
function cut(...places) {
  const ends = [...places, BYTES.length];
  return ReadableStream.from(ends.map((end, i) => BYTES.slice(ends[i - 1] ?? 0, end)));
}

test("The events of a stream are the same wherever the stream is cut, also inside a character.", async () => {
  for (let i = 0; i <= BYTES.length; i++) {
    const found = [];
    await readEvents(cut(i, Math.min(i + 3, BYTES.length)), (event) => found.push(event.text));
    assert.deepEqual(found, ["né", "\n\n日"]);
  }
});

test("A stream that ends without [DONE] is an error, after all of its events.", async () => {
  const found = [];
  const stream = ReadableStream.from([BYTES.slice(0, -14)]);
  await assert.rejects(readEvents(stream, (event) => found.push(event.text)));
  assert.deepEqual(found, ["né", "\n\n日"]);
});

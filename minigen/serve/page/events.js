/** Server-sent events: a stream of bytes, which may be cut anywhere, as one JSON value after another. */

/** Give each event of a stream to `onEvent`; [DONE] ends it. Throw if the stream breaks off before. */
export async function readEvents(stream, onEvent) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Error("the stream broke off");
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const data = event.replace(/^data: /, "");
      if (data === "[DONE]") return;
      onEvent(JSON.parse(data));
    }
  }
}

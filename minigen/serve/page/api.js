/** Requests to the server that the page comes from. */

import { readEvents } from "./events.js";

const TRIES = 4; // of a request that the server is too busy for
const RETRY = 2000; // milliseconds until a server that was away is asked again

/** An answer of the server that says what is wrong; status 0: the server cannot be reached. */
export class ApiError extends Error {
  constructor(message, status, cause) {
    super(message, { cause });
    this.status = status;
  }
}

/**
 * Return the function that asks the server: (address, body, {signal, isQuiet, onEvent}) -> the answer.
 *
 * Without a body it is a GET, else a POST of JSON. The answer is parsed JSON, or an ArrayBuffer with
 * `facts`, the numbers of its headers x-reused, x-computed, x-truncated and x-bytes. Of an answer
 * that streams, `onEvent` gets each event as it comes. A refusal is thrown as `ApiError`. `report`
 * gets each problem, "offline" if the server cannot be reached, and null when the request that had
 * it succeeds; with `isQuiet` it does not get a refusal.
 */
export function makeApi(token, report) {
  let problem = null; // {address, message} of the latest one
  const say = (address, message) => {
    problem = message && { address, message };
    report(message);
  };

  return async function api(address, body, { signal, isQuiet = false, onEvent } = {}) {
    try {
      const answer = await ask(address, body, token, signal, onEvent);
      if (problem && (problem.message === "offline" || problem.address === address)) say(address, null);
      return answer;
    } catch (error) {
      if (error.name === "AbortError") throw error;
      const known = error instanceof ApiError ? error : new ApiError("offline", 0, error);
      if (!(isQuiet && known.status)) say(address, known.message);
      throw known;
    }
  };
}

async function ask(address, body, token, signal, onEvent) {
  // The server's token is ASCII. A wrong one may be anything, but a header may not.
  const headers = token ? { authorization: `Bearer ${token.replace(/[^!-~]/g, "?")}` } : {};
  const options = { headers, signal };
  if (body !== undefined) {
    options.method = "POST";
    options.body = JSON.stringify(body);
    headers["content-type"] = "application/json";
  }
  let answer;
  for (let n = 1; n <= TRIES; n++) {
    answer = await fetch(address, options);
    if (answer.status !== 503 || n === TRIES) break;
    await pause(1000 * Number(answer.headers.get("retry-after") ?? 1), signal);
  }
  if (!answer.ok) {
    const { error } = await answer.json().catch(() => ({}));
    throw new ApiError(error?.message ?? `${answer.status} ${answer.statusText}`, answer.status);
  }
  if (answer.headers.get("content-type")?.includes("json")) return answer.json();
  if (onEvent) {
    return readEvents(answer.body, (event) => {
      if (event.error) throw new ApiError(event.error.message, 500);
      onEvent(event);
    });
  }
  const number = (name) => Number(answer.headers.get(`x-${name}`));
  const facts = Object.fromEntries(
    ["reused", "computed", "truncated", "bytes"].map((name) => [name, number(name)]),
  );
  return Object.assign(await answer.arrayBuffer(), { facts });
}

/** Return what `request` resolves to; repeat it as long as the server is away or too busy. */
export async function insist(request, signal) {
  for (;;) {
    try {
      return await request();
    } catch (error) {
      if (signal.aborted || ![0, 503].includes(error.status)) throw error;
      await pause(RETRY, signal);
    }
  }
}

/** Return what a promise resolves to, unless the signal aborts before. */
export function unlessAborted(promise, signal) {
  if (!signal) return promise;
  signal.throwIfAborted();
  const abort = new Promise((_, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
  return Promise.race([promise, abort]);
}

/** Wait for a number of milliseconds, or until the signal aborts. */
export function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("aborted", "AbortError"));
    });
  });
}

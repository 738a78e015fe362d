// The predictions of the checkpoints of a run, as they are asked for and listed.

import { base64Bytes } from "./vocabulary.js";

const N_ROWS = 8; // candidates in the table
const N_PRESENT = 4; // of them those that the chosen checkpoint finds most probable
const LEAST_P = 0.005; // of a candidate in the table, at some checkpoint

/** Return the checkpoint nearest to a step; if that is the present one, the next towards the step. */
export function nextCheckpoint(steps, present, step) {
  const distances = steps.map((each) => Math.abs(each - step));
  const nearest = distances.indexOf(Math.min(...distances));
  if (steps[nearest] !== present || step === present) return steps[nearest];
  return steps[nearest + Math.sign(step - present)] ?? present;
}

/** Return the tokens to list: the most probable ones of a checkpoint, then those of all. */
export function candidates(predictions, present) {
  const ids = [...new Set(predictions.flatMap(({ bytes }) => Object.keys(bytes).map(Number)))];
  const most = new Map(ids.map((id) => [id, Math.max(...predictions.map(({ p }) => p[id]))]));
  const probable = ids.filter((id) => most.get(id) >= LEAST_P);
  const byPresent = (a, b) => present.p[b] - present.p[a];
  const first = [...probable].sort(byPresent).slice(0, N_PRESENT);
  const others = probable.sort((a, b) => most.get(b) - most.get(a));
  return [...new Set([...first, ...others])].slice(0, N_ROWS).sort(byPresent);
}

/** Return the logits of an answer of /api/replay. */
export function decodeLogits(base64) {
  const bytes = base64Bytes(base64);
  const view = new DataView(bytes.buffer);
  return Float32Array.from({ length: bytes.length / 4 }, (_, n) => view.getFloat32(4 * n, true));
}

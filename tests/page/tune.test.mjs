import assert from "node:assert/strict";
import test from "node:test";
import { due, pluck, roll } from "../../minigen/serve/page/tune.js";

const note = (start, midi, seconds = 0.5, voice = "melody") => ({
  start, midi, seconds, voice, loudness: 0.85, frequency: 440 * 2 ** ((midi - 69) / 12),
});

test("a tone has the samples of the WAV file", () => {
  // minigen.corpora.tunes.sound.pluck(Tone(0, 0.5, 69, 0.85, "melody")) at 44,100 samples a second
  const samples = pluck(note(0, 69), 44_100);
  assert.equal(samples.length, 24255);
  for (const [n, value] of [[100, -0.01840514], [2000, -0.82917235], [12345, 0.69773375], [24000, 0.00293638]]) assert.ok(Math.abs(samples[n] - value) < 1e-6, `${n}`);
  assert.equal(samples[0], 0);
});

test("a tone whose harmonics are too high for the sample rate has only the others", () => {
  const samples = pluck({ ...note(0, 69), frequency: 3000 }, 8000);
  assert.ok(samples.some((x) => Math.abs(x) > 0.1) && samples.every(Number.isFinite));
});

test("each note is due once", () => {
  const notes = [note(0, 60), note(0.5, 62), note(1, 64)];
  const heard = [[0, 0.3], [0.3, 0.6], [0.6, 1], [1, 9]].flatMap(([a, b]) => due(notes, a, b));
  assert.deepEqual(heard, notes);
});

test("a piano roll has higher notes above and later notes on the right", () => {
  const tune = { notes: [note(0, 60), note(1, 72, 1)], bars: [0, 1], seconds: 2 };
  const { notes: [low, high], bars, rows, x } = roll(tune, 200, 108);
  assert.deepEqual([low.x, high.x, high.x + high.width + 1], [0, 100, 200]);
  assert.ok(high.y < low.y && high.y >= 0 && low.y + low.height <= 108);
  assert.deepEqual([bars, rows.length, x(1)], [[0, 100], 27, 100]);
  assert.equal(rows.filter((row) => row.isBlack).length, 11);
});

test("a tune that grows keeps the places of its notes until it is longer than the roll", () => {
  const tune = { notes: [note(0, 60), note(1, 62)], bars: [0], seconds: 1.5 };
  assert.equal(roll(tune, 200, 100, 4).notes[1].x, 50);
  assert.equal(roll({ ...tune, seconds: 8 }, 200, 100, 4).notes[1].x, 25);
  assert.deepEqual(roll({ notes: [], bars: [], seconds: 0 }, 200, 100).notes, []);
});

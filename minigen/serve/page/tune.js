// The sound and the piano roll of a tune, as numbers. Nothing here draws or plays.

const N_HARMONICS = 8;
const ATTACK = 0.006; // seconds in which a tone rises from silence
const RELEASE = 0.05; // and falls to silence

/** Return the samples of a tone, as `pluck` of minigen/corpora/tunes/sound.py does. */
export function pluck({ frequency, seconds, loudness, voice }, sampleRate) {
  const n = Math.round((seconds + RELEASE) * sampleRate);
  const decay = voice === "melody" ? 1.1 : 0.7;
  const samples = new Float32Array(n);
  const ramp = (at, time) => 0.5 - 0.5 * Math.cos(Math.PI * Math.min(1, at / (time * sampleRate)));
  for (let k = 1; k <= N_HARMONICS; k += 1) {
    if (k * frequency >= sampleRate / 2) break; // samples cannot represent higher frequencies
    const height = loudness * k ** -1.4;
    for (let i = 0; i < n; i += 1) {
      const t = i / sampleRate;
      const fading = Math.exp((-t * (1 + k)) / 2 / decay);
      samples[i] += height * fading * Math.sin(2 * Math.PI * k * frequency * t);
    }
  }
  for (let i = 0; i < n; i += 1) samples[i] *= ramp(i, ATTACK) * ramp(n - 1 - i, RELEASE);
  return samples;
}

/** Return the notes that begin from one time to another, in seconds of the tune. */
export function due(notes, from, to) {
  return notes.filter((note) => note.start >= from && note.start < to);
}

/** Return the rectangles of a piano roll: the notes and the bars, in pixels of a canvas. */
export function roll(tune, width, height, leastSeconds = 0) {
  const pitches = tune.notes.map((note) => note.midi);
  const low = Math.min(48, ...pitches) - 1;
  const high = Math.max(72, ...pitches) + 1;
  const seconds = Math.max(tune.seconds, leastSeconds, 1e-3);
  const row = height / (high - low + 1);
  const x = (time) => (time / seconds) * width;
  return {
    x,
    bars: tune.bars.map(x),
    rows: Array.from({ length: high - low + 1 }, (_, n) => ({
      isBlack: [1, 3, 6, 8, 10].includes((high - n) % 12),
      y: n * row,
      height: row,
    })),
    notes: tune.notes.map((note) => ({
      voice: note.voice,
      x: x(note.start),
      y: (high - note.midi) * row,
      width: Math.max(1.5, x(note.seconds) - 1),
      height: Math.max(1.5, row - 0.5),
    })),
  };
}

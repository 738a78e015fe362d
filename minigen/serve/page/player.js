/** The sound of a tune that may still grow: it waits at the end until further notes are there. */

import { due, pluck } from "./tune.js";

const AHEAD = 0.25; // seconds of sound that are handed to the loudspeaker in advance

export class Player {
  /** @param {() => void} changed  gets each change of the position, the beginning and the end */
  constructor(changed) {
    Object.assign(this, { changed, tune: null, isComplete: false, tempo: 1, position: 0, timer: 0 });
  }

  get isPlaying() {
    return this.timer !== 0;
  }

  play() {
    this.context ??= new AudioContext();
    this.context.resume();
    this.output = this.context.createGain();
    this.output.gain.value = 0.35;
    this.output.connect(this.context.destination);
    this.buffers = new Map();
    this.position = this.scheduled = 0;
    this.clock = this.context.currentTime;
    this.timer = setInterval(() => this.tick(), 40);
    this.changed();
  }

  stop() {
    clearInterval(this.timer);
    this.timer = 0;
    this.output?.disconnect();
    this.changed();
  }

  tick() {
    const now = this.context.currentTime;
    const { seconds = 0, notes = [] } = this.tune ?? {};
    this.position = Math.min(seconds, this.position + (now - this.clock) * this.tempo);
    this.clock = now;
    const until = this.position + AHEAD * this.tempo;
    for (const note of due(notes, this.scheduled, until)) {
      const source = this.context.createBufferSource();
      source.buffer = this.bufferOf(note);
      source.connect(this.output);
      source.start(Math.max(now, now + (note.start - this.position) / this.tempo));
    }
    this.scheduled = Math.max(this.scheduled, Math.min(until, seconds + 1e-6));
    if (this.isComplete && this.position >= seconds) this.stop();
    else this.changed();
  }

  bufferOf(note) {
    const seconds = note.seconds / this.tempo;
    const key = [note.midi, note.voice, note.loudness, seconds].join();
    if (!this.buffers.has(key)) {
      const samples = pluck({ ...note, seconds }, this.context.sampleRate);
      const buffer = this.context.createBuffer(1, samples.length, this.context.sampleRate);
      buffer.copyToChannel(samples, 0);
      this.buffers.set(key, buffer);
    }
    return this.buffers.get(key);
  }
}

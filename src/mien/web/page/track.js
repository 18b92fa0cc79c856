// Who is who from frame to frame, by position alone: src/mien/runtime/track.py in the browser.
import { overlap } from "./detect.js";

/** Gives each box a face number; a face that was away for `patience` seconds is a new one. */
export class Tracker {
  constructor({ min_overlap, patience }) {
    this.minOverlap = min_overlap;
    this.patience = patience;
    this.tracks = [];
    this.identities = 0;
  }

  /** Face numbers of a frame's boxes, in their order; `time` in seconds. */
  update(boxes, time) {
    this.tracks = this.tracks.filter((track) => time - track.seen <= this.patience);
    const pairs = this.tracks.flatMap((track) => boxes.map((box, j) => ({ track, j, score: overlap(track.box, box) })));
    const taken = new Map(), used = new Set();
    for (const { track, j, score } of pairs.sort((a, b) => b.score - a.score)) {
      if (score < this.minOverlap || used.has(track) || taken.has(j)) continue;
      used.add(track);
      taken.set(j, track);
    }
    return boxes.map((box, j) => {
      let track = taken.get(j);
      if (!track) {
        track = { id: this.identities++ };
        this.tracks.push(track);
      }
      track.box = box;
      track.seen = time;
      return track.id;
    });
  }

  /** Numbers of the faces that were seen within the last `patience` seconds. */
  get present() {
    return new Set(this.tracks.map((track) => track.id));
  }
}

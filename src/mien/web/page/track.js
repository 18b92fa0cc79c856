// Who is who from frame to frame, by position and motion alone: src/mien/runtime/track.py in the browser, where the rules are explained.
import { assign } from "./assign.js";
import { overlap } from "./boxes.js";
import { LONGEST, Motion } from "./motion.js";

const NEVER = 1e6; // the cost of a pair that is no match
const SAME_SIZE = 2.5; // the size of a face does not change by this factor between two detections
const DOUBLE = 0.4; // an overlap at which two boxes show one face
const SETTLED = 3; // detections after which a face's velocity is known
const SHARED = 0.5; // box sides from a detection within which it may be a face's that is covered by another
const FAST = 0.25; // box sides between two searches at which a face is searched for in every frame

/** Gives faces numbers and follows them between searches: ask `due`, then call `update` with what was found, or `follow`. */
export class Tracker {
  constructor(rules) {
    Object.assign(this, { rules, tracks: [], unsearched: 0, interval: 0, searched: null, identities: 0 });
  }

  /** Numbers of the faces that were found within the last `patience` seconds; others never come back. */
  get present() {
    return new Set(this.tracks.map((track) => track.id));
  }

  /** Whether the coming frame is to be searched: each n-th, and each while a face is new, missing or fast. */
  get due() {
    if (this.searched === null || this.unsearched >= this.rules.detect_every - 1) return true;
    return this.tracks.some((t) => t.missed || t.covered || t.hits < SETTLED || t.motion.sidesPerSecond * this.interval > FAST);
  }

  /** Faces {id, box, score, landmarks} of a frame that was not searched. */
  follow(time) {
    this.unsearched++;
    return this.tracks.filter((track) => !track.missed).map((track) => at(track, time));
  }

  /** Faces of a frame that was searched, the longest known ones first. Times must not fall. */
  update(detections, time) {
    if (this.searched !== null) this.interval = (time - this.searched) / (this.unsearched + 1) * this.rules.detect_every;
    Object.assign(this, { unsearched: 0, searched: time });
    this.tracks = this.tracks.filter((track) => time - track.motion.time <= this.rules.patience);
    let left = this.withoutShared(detections.filter(({ box }) => box.every(Number.isFinite) && Math.min(box[2], box[3]) >= 1), time);
    for (const missed of [false, true]) left = this.match(this.tracks.filter((t) => t.missed === missed && !t.covered), left, time);
    for (const track of this.tracks) track.missed = track.motion.time < time && !track.covered;
    const found = this.tracks.filter((track) => !track.missed);
    for (const detection of left) {
      if (!this.isNew(detection, found, time)) continue;
      const motion = new Motion(detection.box, time, this.rules);
      const track = { id: this.identities++, motion, anchor: detection, hits: 1, missed: false, covered: false };
      found.push(track);
      this.tracks.push(track);
    }
    return found.map((track) => at(track, time));
  }

  /** Marks faces that cross, of which one box was found, as covered; gives the other detections. */
  withoutShared(detections, time) {
    for (const track of this.tracks) track.covered = false;
    const moving = this.tracks.filter((t) => !t.missed && t.hits >= SETTLED && time - t.motion.time <= LONGEST);
    return detections.filter((detection) => {
      const near = moving.filter((track) => cost(track, detection.box, time) < SHARED);
      const others = detections.filter((other) => other !== detection);
      if (near.length < 2 || near.some((track) => others.some((other) => cost(track, other.box, time) < SHARED))) return true;
      for (const track of near) track.covered = true;
      return false;
    });
  }

  isNew({ box, score }, found, time) {
    return score >= this.rules.start_confidence && found.every((track) => overlap(box, track.motion.boxAt(time)) < DOUBLE);
  }

  /** Corrects `tracks` by the detections that are theirs; gives the others. */
  match(tracks, detections, time) {
    if (!tracks.length || !detections.length) return detections;
    const costs = tracks.map((track) => detections.map(({ box }) => {
      const far = cost(track, box, time);
      return far > this.rules.max_distance ? NEVER : far;
    }));
    const taken = new Set();
    assign(costs).forEach((j, i) => {
      if (j < 0 || costs[i][j] >= NEVER) return;
      const track = tracks[i];
      track.motion.correct(detections[j].box, time);
      Object.assign(track, { anchor: detections[j], hits: track.hits + 1 });
      taken.add(j);
    });
    return detections.filter((_, j) => !taken.has(j));
  }
}

/** The face where it is expected, its landmarks moved along with the box. */
function at({ id, motion, anchor }, time) {
  const box = motion.boxAt(time), [x, y, width, height] = anchor.box;
  const landmarks = anchor.landmarks?.map(([u, v]) => [(u - x) * box[2] / width + box[0], (v - y) * box[3] / height + box[1]]);
  return { id, box, score: anchor.score, landmarks };
}

/** How far a box is from where a face is expected, in sides of its box; a missing one may be anywhere on its way. */
function cost({ motion, missed }, [x, y, width, height], time) {
  const ratio = Math.max(width, height) / motion.side;
  if (!(ratio > 1 / SAME_SIZE && ratio < SAME_SIZE)) return NEVER;
  const end = motion.centreAt(time), start = missed ? motion.centre : end;
  const way = [end[0] - start[0], end[1] - start[1]], length = way[0] ** 2 + way[1] ** 2;
  const place = [x + width / 2, y + height / 2];
  const along = (place[0] - start[0]) * way[0] + (place[1] - start[1]) * way[1];
  const share = length > 0 ? Math.min(1, Math.max(0, along / length)) : 0;
  return Math.hypot(place[0] - start[0] - share * way[0], place[1] - start[1] - share * way[1]) / motion.side;
}

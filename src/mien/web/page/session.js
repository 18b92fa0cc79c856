// What is carried from frame to frame: who is there, and each one's smoother. Knows no page and no onnxruntime.
import { cropFace, liesIn } from "./crop.js";
import { argmax, LabelPolicy } from "./policy.js";
import { Tracker } from "./track.js";

const MOST_FACES = 8; // the largest; more would make a frame last longer than a viewer waits

export class Session {
  /**
   * `detect(image)` gives faces {box, score, landmarks}, largest first, `recognise(crops, n)` {probabilities, logits} of n crops
   * as flat arrays; both are promises.
   */
  constructor({ model, live, detect, recognise }) {
    Object.assign(this, { model, live, detect, recognise });
    this.reset();
  }

  /** Forget everybody. */
  reset() {
    this.tracker = new Tracker(this.live);
    this.policies = new Map();
    this.time = -Infinity;
  }

  /** Faces of a frame {data (RGBA), width, height} at `time`, seconds; a time that falls begins anew. */
  async frame(image, time) {
    if (time < this.time) this.reset();
    this.time = time;
    const marks = [performance.now()];
    const tracked = this.tracker.due ? await this.search(image, time) : this.tracker.follow(time);
    marks.push(performance.now());
    const { crop, labels } = this.model, size = 3 * crop.size ** 2;
    const cut = tracked.map((one) => ({ ...one, crop: cropFace(image, one.box, crop, one.landmarks) })).filter((one) => one.crop);
    const crops = new Uint8Array(size * cut.length);
    cut.forEach((one, i) => crops.set(one.crop, i * size));
    const { probabilities, logits } = cut.length ? await this.recognise(crops, cut.length) : {};
    marks.push(performance.now());
    const known = cut.map(({ id, box, score }, i) => {
      const raw = Array.from(probabilities.subarray(labels.length * i, labels.length * (i + 1)));
      const z = Array.from(logits.subarray(labels.length * i, labels.length * (i + 1)));
      return { id, box, score, raw, rawLabel: argmax(raw), ...this.policy(id).update(z, time) };
    });
    return { faces: known, ms: { detect: marks[1] - marks[0], recognise: marks[2] - marks[1] } };
  }

  async search(image, time) {
    const found = (await this.detect(image)).filter((one) => liesIn(one.box, image)).slice(0, MOST_FACES);
    const tracked = this.tracker.update(found, time), { present } = this.tracker;
    for (const id of this.policies.keys()) if (!present.has(id)) this.policies.delete(id);
    return tracked;
  }

  policy(id) {
    if (!this.policies.has(id)) this.policies.set(id, new LabelPolicy(this.live, this.model.thresholds));
    return this.policies.get(id);
  }
}

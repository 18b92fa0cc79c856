// What is carried from frame to frame: who is there, and each one's smoother. Knows no page and no onnxruntime.
import { cropFace } from "./crop.js";
import { faces, letterbox } from "./detect.js";
import { argmax, Smoother } from "./smooth.js";
import { Tracker } from "./track.js";

const MOST_FACES = 8; // the largest; more would make a frame last longer than a viewer waits

export class Session {
  /**
   * `detect(square)` gives {boxes, scores}, `recognise(crops, n)` gives {probabilities, logits} of n crops;
   * both are promises of flat arrays.
   */
  constructor({ model, live, detector, detect, recognise }) {
    Object.assign(this, { model, live, detector, detect, recognise });
    this.reset();
  }

  /** Forget everybody. */
  reset() {
    this.tracker = new Tracker(this.live);
    this.smoothers = new Map();
    this.found = [];
    this.frames = 0;
    this.time = -Infinity;
  }

  /** Faces of a frame {data (RGBA), width, height} at `time`, seconds; a time that falls begins anew. */
  async frame(image, time) {
    if (time < this.time) this.reset();
    this.time = time;
    const marks = [performance.now()];
    if (this.frames++ % this.live.detect_every === 0) await this.search(image, time);
    marks.push(performance.now());
    const { crop, labels } = this.model, size = 3 * crop.size ** 2;
    const cut = this.found.map((one) => ({ ...one, crop: cropFace(image, one.box, crop, one.landmarks) })).filter((one) => one.crop);
    const crops = new Uint8Array(size * cut.length);
    cut.forEach((one, i) => crops.set(one.crop, i * size));
    const { probabilities, logits } = cut.length ? await this.recognise(crops, cut.length) : {};
    marks.push(performance.now());
    const known = cut.map(({ id, box, score }, i) => {
      const raw = Array.from(probabilities.subarray(labels.length * i, labels.length * (i + 1)));
      const z = Array.from(logits.subarray(labels.length * i, labels.length * (i + 1)));
      return { id, box, score, raw, rawLabel: argmax(raw), ...this.smoother(id).update(z, time) };
    });
    return { faces: known, ms: { detect: marks[1] - marks[0], recognise: marks[2] - marks[1] } };
  }

  async search(image, time) {
    const place = letterbox(image, this.detector.side);
    const { boxes, scores } = await this.detect(place.square);
    const found = faces(boxes, scores, place, this.detector).slice(0, MOST_FACES);
    const ids = this.tracker.update(found.map((one) => one.box), time);
    this.found = found.map((one, i) => ({ ...one, id: ids[i] }));
    const present = this.tracker.present;
    for (const id of this.smoothers.keys()) if (!present.has(id)) this.smoothers.delete(id);
  }

  smoother(id) {
    if (!this.smoothers.has(id)) this.smoothers.set(id, new Smoother(this.live, this.model.thresholds));
    return this.smoothers.get(id);
  }
}

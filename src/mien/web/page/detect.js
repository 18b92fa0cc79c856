// Frames to BlazeFace's input, its output to boxes as model files expect them.
import { resize, roundEven } from "./resize.js";

/** The frame as RGB bytes in a black square (side, side, 3), and where it lies in there. */
export function letterbox({ data, width, height }, side) {
  const scale = side / Math.max(width, height);
  const w = Math.max(1, roundEven(width * scale)), h = Math.max(1, roundEven(height * scale));
  const left = Math.floor((side - w) / 2), top = Math.floor((side - h) / 2);
  const small = resize(data, width, height, w, h, 4);
  const square = new Uint8Array(3 * side * side);
  for (let y = 0; y < h; y++) square.set(small.subarray(3 * y * w, 3 * (y + 1) * w), 3 * ((top + y) * side + left));
  return { square, scale, left, top };
}

/** Intersection over union of two boxes [x, y, width, height]. */
export function overlap(a, b) {
  const width = Math.min(a[0] + a[2], b[0] + b[2]) - Math.max(a[0], b[0]);
  const height = Math.min(a[1] + a[3], b[1] + b[3]) - Math.max(a[1], b[1]);
  if (width <= 0 || height <= 0) return 0;
  const both = width * height;
  return both / (a[2] * a[3] + b[2] * b[3] - both);
}

/** Faces {box, score, landmarks} in the frame's pixels, largest first. */
export function faces(boxes, scores, place, settings) {
  const found = [];
  for (let i = 0; i < scores.length; i++) {
    if (scores[i] >= settings.min_score) found.push({ score: scores[i], values: boxes.subarray(16 * i, 16 * i + 16) });
  }
  const toFrame = (value, axis) => (value * settings.side - (axis ? place.top : place.left)) / place.scale;
  return merge(found, settings.overlap).map(({ score, values }) => {
    const width = values[2] * settings.side / place.scale, height = values[3] * settings.side / place.scale;
    const landmarks = [];
    for (let k = 4; k < 16; k += 2) landmarks.push([toFrame(values[k], 0), toFrame(values[k + 1], 1)]);
    return { score, landmarks, box: remap(toFrame(values[0], 0), toFrame(values[1], 1), width, height, settings.remap) };
  }).sort((a, b) => b.box[2] * b.box[3] - a.box[2] * a.box[3]);
}

/** MediaPipe's weighted suppression: overlapping boxes become one, their mean by score. */
function merge(found, limit) {
  const corner = ({ values: v }) => [v[0] - v[2] / 2, v[1] - v[3] / 2, v[2], v[3]];
  let rest = found.sort((a, b) => b.score - a.score);
  const merged = [];
  while (rest.length) {
    const best = rest[0], place = corner(best);
    const group = rest.filter((one) => one === best || overlap(place, corner(one)) > limit);
    const total = group.reduce((sum, one) => sum + one.score, 0);
    const values = Float64Array.from({ length: 16 }, (_, k) => group.reduce((sum, one) => sum + one.score * one.values[k], 0) / total);
    merged.push({ score: best.score, values });
    rest = rest.filter((one) => !group.includes(one));
  }
  return merged;
}

/** BlazeFace's box as the box that crops are measured for (benchmarks/page_boxes.py). */
function remap(x, y, width, height, { dx, dy, width: wide, height: high }) {
  const w = wide * width, h = high * height;
  return [x + dx * width - w / 2, y + dy * height - h / 2, w, h];
}

// BlazeFace: frames to its input, its output to boxes as model files expect them.
import { bySize, overlap } from "./boxes.js";
import { resize, roundEven } from "./resize.js";

/** Finds faces {box, score, landmarks} in a frame, largest first; `run(inputs)` gives the network's {boxes, scores}. */
export const blazeface = (settings, run) => async (image) => {
  const { square, ...place } = letterbox(image, settings.side);
  const { boxes, scores } = await run({ image: [square, [1, settings.side, settings.side, 3]] });
  return faces(boxes, scores, place, settings);
};

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

/** Faces {box, score, landmarks} in the frame's pixels, largest first. */
export function faces(boxes, scores, place, settings) {
  const found = [];
  for (let i = 0; i < scores.length; i++) {
    if (scores[i] >= settings.min_score) found.push({ score: scores[i], values: boxes.subarray(16 * i, 16 * i + 16) });
  }
  const toFrame = (value, axis) => (value * settings.side - (axis ? place.top : place.left)) / place.scale;
  return bySize(merge(found, settings.overlap).map(({ score, values }) => {
    const width = values[2] * settings.side / place.scale, height = values[3] * settings.side / place.scale;
    const landmarks = [];
    for (let k = 4; k < 16; k += 2) landmarks.push([toFrame(values[k], 0), toFrame(values[k + 1], 1)]);
    return { score, landmarks, box: remap(toFrame(values[0], 0), toFrame(values[1], 1), width, height, settings.remap) };
  }));
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

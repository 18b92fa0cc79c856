// YuNet (Wu et al. 2023), which finds smaller faces than BlazeFace does: as src/mien/runtime/detect.py asks it.
import { bySize, overlap } from "./boxes.js";
import { resize, roundEven } from "./resize.js";

const STRIDES = [8, 16, 32], KINDS = ["cls", "obj", "bbox", "kps"];

/** Finds faces {box, score, landmarks} in a frame, largest first; `run(inputs)` gives the network's twelve outputs by name. */
export const yunet = (settings, run) => async (image) => {
  const { planes, shape, scale } = planar(image, settings.side);
  return decode(await run({ input: [planes, shape] }), shape[3], scale, settings);
};

/** The frame at a longer side of at most `side`, as planes of blue, green, red; below and right black up to multiples of 32. */
export function planar({ data, width, height }, side) {
  const scale = Math.min(1, side / Math.max(width, height));
  const w = Math.max(1, roundEven(width * scale)), h = Math.max(1, roundEven(height * scale));
  const small = resize(data, width, height, w, h, 4);
  const wide = 32 * Math.ceil(w / 32), high = 32 * Math.ceil(h / 32), area = wide * high;
  const planes = new Float32Array(3 * area);
  for (let y = 0, from = 0; y < h; y++) {
    for (let x = 0, to = y * wide; x < w; x++, from += 3, to++) {
      planes[to] = small[from + 2]; planes[to + area] = small[from + 1]; planes[to + 2 * area] = small[from];
    }
  }
  return { planes, shape: [1, 3, high, wide], scale };
}

/** Faces in the frame's pixels; `width` is that of the network's input. Of boxes that overlap the best one is left. */
export function decode(outputs, width, scale, settings) {
  const found = STRIDES.flatMap((stride) => candidates(outputs, stride, width / stride, settings.min_score));
  found.sort((a, b) => b.score - a.score);
  const kept = [];
  for (const one of found) if (!kept.some(({ box }) => overlap(box, one.box) > settings.overlap)) kept.push(one);
  return bySize(kept.map(({ score, box, landmarks }) => ({
    score, box: box.map((value) => value / scale), landmarks: landmarks.map((point) => point.map((value) => value / scale)),
  })));
}

const unit = (value) => Math.min(1, Math.max(0, value));

/** The cells of one stride whose score is high enough: a box and five points, the eyes first. */
function candidates(outputs, stride, columns, least) {
  const [cls, obj, boxes, points] = KINDS.map((kind) => outputs[`${kind}_${stride}`]);
  const found = [];
  for (let i = 0; i < cls.length; i++) {
    const score = Math.sqrt(unit(cls[i]) * unit(obj[i]));
    if (score < least) continue;
    const x = i % columns, y = Math.floor(i / columns);
    const [dx, dy, w, h] = boxes.subarray(4 * i, 4 * i + 4);
    const width = Math.exp(w) * stride, height = Math.exp(h) * stride;
    const landmarks = [];
    for (let k = 10 * i; k < 10 * i + 10; k += 2) landmarks.push([(points[k] + x) * stride, (points[k + 1] + y) * stride]);
    found.push({ score, landmarks, box: [(x + dx) * stride - width / 2, (y + dy) * stride - height / 2, width, height] });
  }
  return found;
}

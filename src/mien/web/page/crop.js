// Cuts a face out of a frame exactly as crop_face of src/mien/core/geometry.py does.
import { resize, roundEven } from "./resize.js";

/** The square that a model's crop cuts around a detector's box [x, y, width, height]; it may reach beyond the frame. */
export function cropSquare([x, y, width, height], crop) {
  const side = crop.scale * Math.max(width, height);
  return [x + (width - side) / 2, y + height / 2 + crop.shift_y * height - side / 2, side, side];
}

/** RGB bytes (size, size, 3) of the face in `box`, or null for a box that cannot be cut. */
export function cropFace(frame, box, crop, landmarks) {
  if (!liesIn(box, frame)) return null;
  const [x, y, side] = cropSquare(box, crop);
  if (!liesIn([x, y, side, side], frame)) return null;
  const n = roundEven(side);
  if (n > 4 * Math.max(frame.width, frame.height)) return null;
  const turn = crop.align === "eyes" ? tilt(landmarks) : 0;
  const left = roundEven(x), top = roundEven(y);
  const cut = turn ? cutTurned(frame, left, top, n, turn) : cutStraight(frame, left, top, n);
  return resize(cut, n, n, crop.size, crop.size);
}

/** Whether a box is finite, has an area, and something of it lies in the frame. */
export function liesIn([x, y, width, height], frame) {
  if (![x, y, width, height].every(Number.isFinite) || Math.min(width, height) < 1) return false;
  const left = roundEven(x), top = roundEven(y);
  return left < frame.width && top < frame.height && left + roundEven(width) > 0 && top + roundEven(height) > 0;
}

/** Radians by which the line through the eyes, the first two landmarks, falls to the right. */
function tilt(landmarks) {
  if (!landmarks) return 0;
  const [a, b] = landmarks.slice(0, 2).sort((p, q) => p[0] - q[0] || p[1] - q[1]);
  return b[0] > a[0] ? Math.atan2(b[1] - a[1], b[0] - a[0]) : 0;
}

const clamp = (value, limit) => (value < 0 ? 0 : value >= limit ? limit - 1 : value);

function cutStraight({ data, width, height }, left, top, n) {
  const out = new Uint8Array(3 * n * n);
  for (let y = 0, to = 0; y < n; y++) {
    const line = clamp(top + y, height) * width;
    for (let x = 0; x < n; x++, to += 3) {
      const from = 4 * (line + clamp(left + x, width));
      out[to] = data[from]; out[to + 1] = data[from + 1]; out[to + 2] = data[from + 2];
    }
  }
  return out;
}

/** The square turned about its centre, bilinear. */
function cutTurned({ data, width, height }, left, top, n, turn) {
  const out = new Uint8Array(3 * n * n);
  const cos = Math.cos(turn), sin = Math.sin(turn), half = (n - 1) / 2;
  for (let v = 0, to = 0; v < n; v++) {
    for (let u = 0; u < n; u++, to += 3) {
      const x = left + half + cos * (u - half) - sin * (v - half);
      const y = top + half + sin * (u - half) + cos * (v - half);
      const x0 = Math.floor(x), y0 = Math.floor(y), fx = x - x0, fy = y - y0;
      const upper = clamp(y0, height) * width, lower = clamp(y0 + 1, height) * width;
      const west = clamp(x0, width), east = clamp(x0 + 1, width);
      for (let c = 0; c < 3; c++) {
        const above = data[4 * (upper + west) + c] * (1 - fx) + data[4 * (upper + east) + c] * fx;
        const below = data[4 * (lower + west) + c] * (1 - fx) + data[4 * (lower + east) + c] * fx;
        out[to + c] = roundEven(above * (1 - fy) + below * fy);
      }
    }
  }
  return out;
}

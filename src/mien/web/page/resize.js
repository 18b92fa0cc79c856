// Resizing as OpenCV does it, so that the page's crops are Python's (src/mien/core/geometry.py) within a grey level.

/** Rounds halves to the even neighbour, as Python's round() and OpenCV do. */
export function roundEven(value) {
  const floor = Math.floor(value);
  const rest = value - floor;
  if (rest !== 0.5) return rest < 0.5 ? floor : floor + 1;
  return floor % 2 === 0 ? floor : floor + 1;
}

/** RGB bytes (toHeight, toWidth, 3) of an image of `channels` 3 or 4: area averages where both sides shrink, else bicubic. */
export function resize(image, width, height, toWidth, toHeight, channels = 3) {
  if (channels === 3 && width === toWidth && height === toHeight) return image.slice();
  const taps = Math.min(width, height) > Math.min(toWidth, toHeight) ? areaTaps : cubicTaps;
  return separable(image, width, channels, taps(width, toWidth), taps(height, toHeight));
}

/** Which source places a target place averages, and their weights: the shares of each that lie in its interval. */
function areaTaps(from, to) {
  const scale = from / to;
  return Array.from({ length: to }, (_, i) => {
    const start = i * scale, end = Math.min(from, start + scale);
    const first = Math.floor(start + 1e-9), last = Math.max(first, Math.ceil(end - 1e-9) - 1);
    const weights = new Float64Array(last - first + 1);
    for (let k = first; k <= last; k++) {
      weights[k - first] = (Math.min(end, k + 1) - Math.max(start, k)) / (end - start);
    }
    return { first, weights };
  });
}

/** Keys' cubic with a = -0.75, weights in 1/2048 as OpenCV has them; beyond the edge its last place is repeated. */
function cubicTaps(from, to) {
  const a = -0.75, scale = from / to;
  return Array.from({ length: to }, (_, i) => {
    const at = (i + 0.5) * scale - 0.5, whole = Math.floor(at), x = at - whole;
    const near = (t) => ((a + 2) * t - (a + 3)) * t * t + 1;
    const far = (t) => ((a * t - 5 * a) * t + 8 * a) * t - 4 * a;
    const outer = far(x + 1), inner = near(x), next = near(1 - x);
    const raw = [outer, inner, next, 1 - outer - inner - next].map((w) => roundEven(w * 2048) / 2048);
    const first = Math.min(from - 1, Math.max(0, whole - 1)), last = Math.min(from - 1, Math.max(0, whole + 2));
    const weights = new Float64Array(last - first + 1);
    raw.forEach((w, k) => { weights[Math.min(last, Math.max(first, whole - 1 + k)) - first] += w; });
    return { first, weights };
  });
}

/** Rows first, which lie in memory one after the other, then columns of the few that are left. */
function separable(image, width, channels, columns, rows) {
  const line = channels * width, sums = new Float64Array(line), result = new Uint8Array(3 * rows.length * columns.length);
  let out = 0;
  for (const { first, weights } of rows) {
    sums.fill(0);
    for (let k = 0; k < weights.length; k++) {
      const weight = weights[k], from = (first + k) * line;
      for (let i = 0; i < line; i++) sums[i] += weight * image[from + i];
    }
    for (const column of columns) {
      let red = 0, green = 0, blue = 0;
      for (let k = 0, at = channels * column.first; k < column.weights.length; k++, at += channels) {
        const weight = column.weights[k];
        red += weight * sums[at]; green += weight * sums[at + 1]; blue += weight * sums[at + 2];
      }
      result[out++] = byte(red); result[out++] = byte(green); result[out++] = byte(blue);
    }
  }
  return result;
}

const byte = (value) => Math.min(255, Math.max(0, roundEven(Math.fround(value))));

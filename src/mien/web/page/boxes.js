// Boxes [x, y, width, height].

/** Intersection over union of two boxes. */
export function overlap(a, b) {
  const width = Math.min(a[0] + a[2], b[0] + b[2]) - Math.max(a[0], b[0]);
  const height = Math.min(a[1] + a[3], b[1] + b[3]) - Math.max(a[1], b[1]);
  if (width <= 0 || height <= 0) return 0;
  const both = width * height;
  return both / (a[2] * a[3] + b[2] * b[3] - both);
}

/** Largest first. */
export const bySize = (faces) => faces.sort((a, b) => b.box[2] * b.box[3] - a.box[2] * a.box[3]);

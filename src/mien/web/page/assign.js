// The assignment of rows to columns whose costs have the least sum (Kuhn 1955, with Jonker & Volgenant's potentials).

/** Column of each row of a matrix of costs, -1 where there are more rows than columns. */
export function assign(costs) {
  const rows = costs.length, columns = costs[0].length;
  if (rows > columns) {
    const found = Array(rows).fill(-1);
    assign(costs[0].map((_, j) => costs.map((row) => row[j]))).forEach((i, j) => { found[i] = j; });
    return found;
  }
  // Places count from 1; column 0 holds the row that is being placed.
  const u = Array(rows + 1).fill(0), v = Array(columns + 1).fill(0), rowOf = Array(columns + 1).fill(0);
  for (let i = 1; i <= rows; i++) {
    const least = Array(columns + 1).fill(Infinity), used = Array(columns + 1).fill(false), from = Array(columns + 1).fill(0);
    let j = 0;
    rowOf[0] = i;
    do {
      used[j] = true;
      let step = Infinity, next = 0;
      for (let k = 1; k <= columns; k++) {
        if (used[k]) continue;
        const cost = costs[rowOf[j] - 1][k - 1] - u[rowOf[j]] - v[k];
        if (cost < least[k]) { least[k] = cost; from[k] = j; }
        if (least[k] < step) { step = least[k]; next = k; }
      }
      for (let k = 0; k <= columns; k++) {
        if (used[k]) { u[rowOf[k]] += step; v[k] -= step; } else least[k] -= step;
      }
      j = next;
    } while (rowOf[j] !== 0);
    for (; j !== 0; j = from[j]) rowOf[j] = rowOf[from[j]];
  }
  const found = Array(rows).fill(-1);
  for (let k = 1; k <= columns; k++) if (rowOf[k]) found[rowOf[k] - 1] = k - 1;
  return found;
}

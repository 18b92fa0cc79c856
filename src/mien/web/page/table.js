// One's own table: a row per face and frame, in memory alone, in the columns of `mien video`.

export const STATUSES = ["ok", "abstained", "no_face", "decode_error"];
const CHUNK = 4096; // rows
const MOST = 1_000_000; // rows: about 110 MB, 4.6 hours of one face at 60 frames a second

export class FrameTable {
  constructor(columns, labels) {
    Object.assign(this, { columns, labels });
    // Times need more digits than 32 bits hold; texts are kept as numbers.
    this.width = columns.length - 1;
    this.clear();
  }

  clear() {
    this.chunks = [];
    this.rows = 0;
  }

  get full() {
    return this.rows >= MOST;
  }

  /** Adds a frame: a row for each of its faces, one row where there is none. */
  add(frame, time, faces, status = "no_face") {
    if (!faces.length) this.row(time, [frame, STATUSES.indexOf(status)]);
    for (const face of faces) {
      const kind = STATUSES.indexOf(face.label === null ? "abstained" : "ok");
      this.row(time, [frame, kind, face.id, ...face.box, ...face.raw, ...face.smooth, face.rawLabel, face.label ?? NaN]);
    }
  }

  row(time, values) {
    if (this.full) return;
    const at = this.rows++ % CHUNK;
    if (at === 0) this.chunks.push({ times: new Float64Array(CHUNK), values: new Float32Array(CHUNK * this.width).fill(NaN) });
    const chunk = this.chunks.at(-1);
    chunk.times[at] = time;
    chunk.values.set(values, at * this.width);
  }

  /** The table as a CSV file; what is not there is NA, which pandas and R read as missing. */
  csv() {
    const name = (value) => (Number.isNaN(value) ? "NA" : this.labels[value]);
    const number = (value) => (Number.isNaN(value) ? "NA" : String(Number(value.toPrecision(9))));
    const parts = this.chunks.map(({ times, values }, k) => {
      let text = "";
      for (let i = 0; i < Math.min(CHUNK, this.rows - k * CHUNK); i++) {
        const [frame, status, ...rest] = values.subarray(i * this.width, (i + 1) * this.width);
        const label = name(rest.pop()), raw = name(rest.pop());
        text += [frame, times[i], STATUSES[status], ...rest.map(number), raw, label].join(",") + "\n";
      }
      return text;
    });
    return new Blob([this.columns.join(",") + "\n", ...parts], { type: "text/csv" });
  }
}

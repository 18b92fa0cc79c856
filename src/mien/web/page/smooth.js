// Calm output: src/mien/runtime/smooth.py in the browser.

const gain = (cutoff, dt) => { const rate = 2 * Math.PI * cutoff * dt; return rate / (rate + 1); };

/** The One-Euro filter (Casiez, Roussel & Vogel 2012) on a vector, with one cut-off for all of it. */
export class OneEuro {
  constructor({ cutoff, beta, speed_cutoff }) {
    Object.assign(this, { cutoff, beta, speedCutoff: speed_cutoff, value: null });
  }

  /** The filtered value at `time`, seconds, which must not fall. */
  next(value, time) {
    if (this.value === null) {
      this.value = value.slice();
      this.speed = value.map(() => 0);
    } else {
      const dt = Math.max(1e-6, time - this.time), follow = gain(this.speedCutoff, dt);
      this.speed = this.speed.map((speed, i) => speed + follow * ((value[i] - this.value[i]) / dt - speed));
      const mean = this.speed.reduce((sum, speed) => sum + Math.abs(speed), 0) / this.speed.length;
      const rate = gain(this.cutoff + this.beta * mean, dt);
      this.value = this.value.map((old, i) => old + rate * (value[i] - old));
    }
    this.time = time;
    return this.value.slice();
  }
}

export const argmax = (values) => values.reduce((best, value, i) => (value > values[best] ? i : best), 0);

/** One face's smoothed probabilities, and the label that is shown. */
export class Smoother {
  constructor(live, thresholds) {
    this.filter = new OneEuro(live);
    Object.assign(this, { dwell: live.dwell, hysteresis: live.hysteresis, thresholds, shown: null, rival: null, since: 0 });
  }

  /** {smooth, label}: probabilities, and the label's number or null while the model is not sure. */
  update(logits, time) {
    const mean = logits.reduce((sum, z) => sum + z, 0) / logits.length;
    const z = this.filter.next(logits.map((one) => one - mean), time), top = Math.max(...z);
    const powers = z.map((one) => Math.exp(one - top)), total = powers.reduce((sum, one) => sum + one, 0);
    const p = powers.map((one) => one / total), best = argmax(p);
    if (this.shown === null) this.shown = best;
    const leads = best !== this.shown && p[best] - p[this.shown] >= this.hysteresis;
    if (!leads) this.rival = null;
    else if (best !== this.rival) { this.rival = best; this.since = time; }
    if (leads && time - this.since >= this.dwell) { this.shown = best; this.rival = null; }
    return { smooth: p, label: p[this.shown] >= this.thresholds[this.shown] ? this.shown : null };
  }
}

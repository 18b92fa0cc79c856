// Calm output: filters and rules of src/mien/runtime/smooth.py and policy.py in the browser. Golden traces hold the two together.

const SHORTEST = 1e-6; // seconds between two frames, at least
const gain = (cutoff, dt) => { const rate = 2 * Math.PI * cutoff * dt; return rate / (rate + 1); };
const towards = (old, value, share) => old.map((one, i) => one + share * (value[i] - one));

/** The One-Euro filter (Casiez, Roussel & Vogel 2012) on a vector, with one cut-off for all of it. */
class OneEuro {
  constructor({ cutoff, beta, speed_cutoff }) {
    Object.assign(this, { cutoff, beta, speedCutoff: speed_cutoff, value: null });
  }

  next(value, time) {
    if (this.value === null) Object.assign(this, { value: value.slice(), speed: value.map(() => 0) });
    else {
      const dt = Math.max(SHORTEST, time - this.time);
      this.speed = towards(this.speed, value.map((one, i) => (one - this.value[i]) / dt), gain(this.speedCutoff, dt));
      const mean = this.speed.reduce((sum, speed) => sum + Math.abs(speed), 0) / this.speed.length;
      this.value = towards(this.value, value, gain(this.cutoff + this.beta * mean, dt));
    }
    this.time = time;
    return this.value;
  }
}

/** Exponential moving average, the same at any frame rate. */
class Ema {
  constructor({ time_constant }) {
    Object.assign(this, { timeConstant: time_constant, value: null });
  }

  next(value, time) {
    this.value = this.value === null ? value.slice()
      : towards(this.value, value, 1 - Math.exp(-Math.max(SHORTEST, time - this.time) / this.timeConstant));
    this.time = time;
    return this.value;
  }
}

const FILTERS = { one_euro: OneEuro, ema: Ema, none: class { next(value) { return value; } } };

export const argmax = (values) => values.reduce((best, value, i) => (value > values[best] ? i : best), 0);

/** One face's smoothed probabilities, and the label that is shown. */
export class LabelPolicy {
  /** `rules` of live.json; `thresholds`: the probability that each label needs. */
  constructor(rules, thresholds) {
    Object.assign(this, { rules, thresholds, filter: new FILTERS[rules.filter](rules), started: false, label: null, pending: false });
  }

  /** {smooth, label}: probabilities, and the label's number or null while unsure. Times must not fall. */
  update(logits, time) {
    const mean = logits.reduce((sum, z) => sum + z, 0) / logits.length;
    const z = this.filter.next(logits.map((one) => one - mean), time), top = Math.max(...z);
    const powers = z.map((one) => Math.exp(one - top)), total = powers.reduce((sum, one) => sum + one, 0);
    const smooth = powers.map((one) => one / total), candidate = this.candidateOf(smooth);
    if (this.started) this.decide(candidate, time);
    else Object.assign(this, { started: true, label: candidate });
    return { smooth, label: this.label };
  }

  /** The candidate by these probabilities, given the label. */
  candidateOf(p) {
    const best = argmax(p), reached = p[best] >= this.thresholds[best], { label } = this;
    if (label === null) return reached ? best : null;
    if (best !== label && reached && p[best] - p[label] >= this.rules.hysteresis) return best;
    return p[label] >= this.thresholds[label] - this.rules.release ? label : null;
  }

  /** Makes the label what has been the candidate for long enough. */
  decide(candidate, time) {
    if (candidate === this.label) {
      this.pending = false;
      return;
    }
    if (!this.pending) Object.assign(this, { pending: true, candidate, candidateSince: time, lostSince: time });
    else if (candidate !== this.candidate) Object.assign(this, { candidate, candidateSince: time });
    const { dwell, hold } = this.rules;
    if (time - this.candidateSince >= dwell) Object.assign(this, { label: candidate, pending: false });
    else if (time - this.lostSince >= Math.max(hold, dwell) && this.label !== null) Object.assign(this, { label: null, lostSince: time });
  }
}

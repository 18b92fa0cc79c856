// Where a face is between two detections: src/mien/runtime/motion.py in the browser, a constant-velocity Kalman filter.

const FIRST_SPEED = 4; // box sides a second: the standard deviation of the speed of a face that was seen once
export const LONGEST = 0.4; // seconds after which a face that is not seen is thought to have stopped

export class Motion {
  constructor([x, y, width, height], time, rules) {
    Object.assign(this, { rules, time, centre: [x + width / 2, y + height / 2], size: [width, height], speed: [0, 0] });
    this.covariance = [(rules.box_noise * this.side) ** 2, 0, (FIRST_SPEED * this.side) ** 2]; // place, both, speed
  }

  get side() {
    return Math.max(...this.size);
  }

  get sidesPerSecond() {
    return Math.hypot(...this.speed) / this.side;
  }

  centreAt(time) {
    const dt = Math.min(Math.max(0, time - this.time), LONGEST);
    return this.centre.map((value, i) => value + dt * this.speed[i]);
  }

  boxAt(time) {
    const [x, y] = this.centreAt(time), [width, height] = this.size;
    return [x - width / 2, y - height / 2, width, height];
  }

  /** Takes in a measured box of `time`, not before the last one's. */
  correct([x, y, width, height], time) {
    const dt = Math.max(1e-3, time - this.time), push = this.rules.acceleration * this.side;
    const [place, both, speed] = this.covariance, a = dt * dt / 2 * push, b = dt * push;
    const p = place + 2 * dt * both + dt * dt * speed + a * a, q = both + dt * speed + a * b, r = speed + b * b;
    const total = p + (this.rules.box_noise * this.side) ** 2, follow = p / total, steer = q / total;
    this.covariance = [p - follow * p, q - follow * q, r - steer * q];
    const expected = this.centreAt(time), off = [x + width / 2 - expected[0], y + height / 2 - expected[1]];
    this.centre = expected.map((value, i) => value + follow * off[i]);
    this.speed = this.speed.map((value, i) => value + steer * off[i]);
    this.size = this.size.map((value, i) => value + follow * ([width, height][i] - value));
    this.time = time;
  }
}

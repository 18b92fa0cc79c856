// What is shown: the analysed frame with its boxes, bars for each face, the past as a timeline.

// Okabe & Ito 2008: colours that colour-blind people tell apart (src/mien/runtime/overlay.py has the same).
export const COLOURS = {
  angry: "#d55e00", disgust: "#009e73", fear: "#cc79a7", happy: "#f0e442", neutral: "#a8a8a8", sad: "#0072b2", surprise: "#56b4e9",
};
const UNSURE = "#8c8c8c", SPAN = 20; // seconds of the timeline
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const percent = (value) => `${Math.round(100 * value)} %`;
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const element = (tag, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
};

/** Paints the very frame that was analysed, and its faces; `mirrored` as one sees oneself. */
export function paint(canvas, bitmap, faces, labels, mirrored) {
  if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) Object.assign(canvas, { width: bitmap.width, height: bitmap.height });
  const context = canvas.getContext("2d"), unit = Math.max(1, Math.min(bitmap.width, bitmap.height) / 360);
  context.setTransform(mirrored ? -1 : 1, 0, 0, 1, mirrored ? canvas.width : 0, 0);
  context.drawImage(bitmap, 0, 0);
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.lineWidth = 3 * unit;
  context.font = `600 ${16 * unit}px system-ui, sans-serif`;
  for (const { id, box: [x, y, w, h], label } of faces) {
    const left = mirrored ? canvas.width - x - w : x;
    const text = `${id + 1}: ${label === null ? "unsure" : labels[label]}`, wide = context.measureText(text).width + 12 * unit;
    const top = Math.max(0, y - 24 * unit);
    context.strokeStyle = context.fillStyle = label === null ? UNSURE : COLOURS[labels[label]];
    context.strokeRect(left, y, w, h);
    context.fillStyle = "#000000c0";
    context.fillRect(left, top, wide, 24 * unit);
    context.fillStyle = "#ffffff";
    context.fillText(text, left + 6 * unit, top + 18 * unit);
  }
}

/** A card a face: its label and seven bars. */
export class Cards {
  constructor(root, labels, choose) {
    Object.assign(this, { root, labels, choose, cards: new Map(), written: -Infinity });
  }

  clear() {
    this.root.replaceChildren();
    this.cards.clear();
  }

  show(faces, chosen) {
    const here = new Set(faces.map((face) => face.id));
    for (const [id, card] of this.cards) {
      if (here.has(id)) continue;
      card.root.remove();
      this.cards.delete(id);
    }
    const write = performance.now() - this.written > (calm.matches ? 500 : 120); // digits that change faster cannot be read
    if (write) this.written = performance.now();
    for (const face of faces) {
      const fresh = !this.cards.has(face.id), card = fresh ? this.make(face.id) : this.cards.get(face.id);
      card.choose.hidden = faces.length < 2;
      card.choose.setAttribute("aria-pressed", String(face.id === chosen));
      if (fresh || write || !calm.matches) face.smooth.forEach((p, i) => { card.bars[i].style.transform = `scaleX(${p.toFixed(3)})`; });
      if (fresh || write) this.write(card, face);
    }
  }

  write(card, { smooth, label }) {
    card.name.textContent = label === null ? "unsure" : this.labels[label];
    smooth.forEach((p, i) => { card.percents[i].textContent = percent(p); });
  }

  make(id) {
    const name = element("span"), choose = element("button", { type: "button", className: "show", textContent: "Show in the timeline" });
    choose.addEventListener("click", () => this.choose(id));
    const bars = [], percents = [];
    const list = element("ul", {}, ...this.labels.map((label) => {
      const fill = element("i"), value = element("span", { className: "percent" }), bar = element("div", { className: "bar" }, fill);
      fill.style.setProperty("--class", COLOURS[label]);
      bars.push(fill);
      percents.push(value);
      return element("li", {}, element("span", { textContent: label }), bar, value);
    }));
    const title = element("h3", {}, name, element("small", { textContent: `face ${id + 1}` }));
    const root = element("article", { className: "card" }, title, list, choose);
    root.setAttribute("aria-label", `Face ${id + 1}`);
    this.root.append(root);
    this.cards.set(id, { root, name, choose, bars, percents });
    return this.cards.get(id);
  }
}

/** The last seconds of one face: a row a class, its smoothed probability as a height, the shown label as a line below. */
export class Timeline {
  constructor(canvas, words, labels) {
    Object.assign(this, { canvas, words, labels, past: new Map(), drawn: -Infinity, said: -Infinity });
  }

  clear() {
    this.past.clear();
    this.drawn = this.said = -Infinity;
  }

  add(time, faces) {
    for (const { id, smooth, label } of faces) {
      if (!this.past.has(id)) this.past.set(id, []);
      this.past.get(id).push({ time, smooth, label });
    }
    for (const [id, points] of this.past) {
      while (points.length && points[0].time < time - SPAN) points.shift();
      if (!points.length) this.past.delete(id);
    }
    this.time = time;
  }

  /** Draws at most as often as the eye follows; once a second where motion is not wanted. */
  draw(chosen) {
    const now = performance.now(), points = this.past.get(chosen) ?? [];
    if (now - this.said > 2000) {
      this.said = now;
      this.words.textContent = this.shares(points, chosen);
    }
    if (now - this.drawn < (calm.matches ? 1000 : 30)) return;
    this.drawn = now;
    const ratio = devicePixelRatio || 1, width = this.canvas.clientWidth, height = this.canvas.clientHeight;
    if (this.canvas.width !== Math.round(width * ratio)) Object.assign(this.canvas, { width: Math.round(width * ratio), height: Math.round(height * ratio) });
    const context = this.canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    context.font = "13px system-ui, sans-serif";
    const lane = height / this.labels.length, left = 72, at = (time) => width - (this.time - time) / SPAN * (width - left);
    this.labels.forEach((label, i) => this.lane(context, points, i, { top: i * lane, lane, left, width, at, colour: COLOURS[label] }));
  }

  lane(context, points, i, { top, lane, left, width, at, colour }) {
    const bottom = top + lane - 5, high = lane - 9;
    context.fillStyle = css("--track");
    context.fillRect(left, top + 2, width - left, lane - 4);
    context.fillStyle = css("--ink");
    context.fillText(this.labels[i], 0, top + lane / 2 + 4);
    context.fillStyle = colour;
    context.beginPath();
    points.forEach(({ time, smooth }, k) => {
      const gap = k === 0 || time - points[k - 1].time > 0.5; // the face was away
      if (gap && k) context.lineTo(at(points[k - 1].time), bottom);
      if (gap) context.moveTo(at(time), bottom);
      context.lineTo(at(time), bottom - high * smooth[i]);
    });
    if (points.length) context.lineTo(at(points.at(-1).time), bottom);
    context.fill();
    context.fillStyle = css("--ink");
    points.forEach(({ time, label }, k) => {
      const next = points[k + 1]?.time ?? time;
      if (label === i && next - time < 0.5) context.fillRect(at(time), bottom + 1, Math.max(1, at(next) - at(time)), 2);
    });
  }

  shares(points, chosen) {
    if (!points.length) return "Nobody was seen in the last 20 seconds.";
    const counts = new Map();
    for (const { label } of points) counts.set(label, (counts.get(label) ?? 0) + 1);
    const parts = [...counts].sort((a, b) => b[1] - a[1]).map(([label, n]) => `${label === null ? "unsure" : this.labels[label]} ${percent(n / points.length)}`);
    return `Face ${chosen + 1}: ${parts.join(", ")} of the frames. The line under a row says when its label was shown.`;
  }
}

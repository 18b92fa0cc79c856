// The page: buttons and messages. Frames go to the worker, what it answers is shown and put into the table.
import { advice, lacking } from "./advice.js";
import { Player } from "./source.js";
import { FrameTable } from "./table.js";
import { Cards, paint, Timeline } from "./view.js";

const at = (id) => document.getElementById(id);
const controls = { camera: at("camera"), file: at("file"), stop: at("stop"), download: at("download"), clear: at("clear") };
const state = { model: null, run: 0, chosen: null, table: null, spoken: null, spokenAt: -Infinity, hiddenAt: null, count: 0, begun: 0 };
let cards, timeline;

function say(text, problem = false) {
  at("status").textContent = text;
  at("status").classList.toggle("problem", problem);
}

const player = new Player(at("video"), {
  frame: ({ bitmap, time, frame }) => worker.postMessage({ kind: "frame", run: state.run, bitmap, time, frame }, [bitmap]),
  ended: () => finish(`The video has ended; ${state.count} of its frames were looked at.`),
  failed: (error) => fail(error),
});

function fail(error) {
  const kind = player.kind;
  finish("");
  say(advice(kind, error), true);
}

/** Everything that runs is stopped; what was recognised stays. */
function finish(text) {
  player.stop();
  const focused = document.activeElement === controls.stop;
  controls.stop.hidden = true;
  document.querySelector(".controls").classList.remove("running");
  if (focused) controls.camera.focus(); // the button that had it is gone
  if (text) say(text);
}

async function begin(text, start, mirrored = false) {
  finish("");
  state.run++;
  worker.postMessage({ kind: "reset" });
  Object.assign(state, { mirrored, chosen: null, spoken: null, count: 0, begun: performance.now() });
  at("rate").textContent = "";
  cards.clear();
  timeline.clear();
  clearTable();
  say(text);
  try {
    await start();
    if (!player.kind) return; // stopped meanwhile
  } catch (error) {
    fail(error);
  }
}

function running(text) {
  const focused = [controls.camera, controls.file].includes(document.activeElement);
  controls.stop.hidden = false;
  document.querySelector(".controls").classList.add("running");
  if (focused) controls.stop.focus();
  say(text);
}

controls.camera.addEventListener("click", () => begin("Your browser asks whether this page may use the camera …", async () => {
  controls.stop.hidden = false;
  await player.camera();
  if (player.kind) running("The camera is on.");
}, true));

function open(file) {
  if (!file) return;
  const video = file.type.startsWith("video/") || /\.(mp4|m4v|mov|webm|mkv|avi|ogv)$/i.test(file.name);
  begin(`Opening ${file.name} …`, async () => {
    if (!video) return player.image(file);
    controls.stop.hidden = false;
    await player.file(file);
    if (player.kind) running(`Playing ${file.name}.`);
  });
}

controls.file.addEventListener("change", () => {
  open(controls.file.files[0]);
  controls.file.value = ""; // the same file may be chosen again
});
controls.stop.addEventListener("click", () => finish("Stopped. The camera is off."));

const stage = at("stage");
addEventListener("dragover", (event) => {
  event.preventDefault();
  stage.classList.add("over");
});
addEventListener("dragleave", () => stage.classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault(); // else the browser leaves the page for the file
  stage.classList.remove("over");
  if (!controls.file.disabled) open(event.dataTransfer.files[0]);
});

document.addEventListener("visibilitychange", () => {
  if (!player.kind || player.kind === "image") return;
  if (document.hidden) state.hiddenAt = performance.now();
  else if (state.hiddenAt !== null) {
    const seconds = Math.round((performance.now() - state.hiddenAt) / 1000);
    say(`This tab was hidden for ${seconds} s; browsers show hidden tabs no frames, so nothing was looked at. Keep it visible.`);
    state.hiddenAt = null;
  }
});

function clearTable() {
  state.table.clear();
  count();
}

function count() {
  const { rows, full } = state.table;
  const many = rows ? `${rows.toLocaleString("en")} row${rows === 1 ? "" : "s"}` : "No rows yet";
  at("rows").textContent = full ? `${many}, and it is full: download it, then clear it` : many;
  controls.download.disabled = controls.clear.disabled = rows === 0;
}

/** Every thirtieth frame: how many rows there are, and how fast it goes. */
function pulse(ms) {
  count();
  const now = performance.now(), rate = 30_000 / (now - state.begun);
  if (state.count > 1 && ms) at("rate").textContent = `${rate.toFixed(0)} frames a second looked at, ${ms.total.toFixed(0)} ms each`;
  state.begun = now;
}

controls.clear.addEventListener("click", clearTable);
controls.download.addEventListener("click", () => {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(state.table.csv()), download: "mien-frames.csv" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
});

/** The face whose past is shown: the one that was asked for, while it is there, else the largest. */
function choose(faces) {
  if (!faces.some((face) => face.id === state.chosen) && faces.length) state.chosen = faces[0].id;
  return state.chosen;
}

/** Says a new label to those who hear the page, at most every three seconds. */
function speak(faces) {
  const face = faces.find((one) => one.id === state.chosen);
  const text = face ? (face.label === null ? "unsure" : state.model.labels[face.label]) : "no face";
  if (text === state.spoken || performance.now() - state.spokenAt < 3000) return;
  Object.assign(state, { spoken: text, spokenAt: performance.now() });
  at("announcement").textContent = text;
}

function show({ bitmap, faces, frame, time }) {
  const canvas = at("image"), { labels } = state.model;
  canvas.hidden = false;
  at("empty").hidden = true;
  paint(canvas, bitmap, faces, labels, state.mirrored);
  bitmap.close();
  const names = faces.map((face) => (face.label === null ? "unsure" : labels[face.label])).join(", ");
  const described = faces.length ? `${faces.length === 1 ? "One face" : `${faces.length} faces`}: ${names}` : "No face";
  if (canvas.getAttribute("aria-label") !== described) canvas.setAttribute("aria-label", described);
  state.table.add(frame, time, faces);
  const chosen = choose(faces);
  at("nobody").hidden = faces.length > 0;
  cards.show(faces, chosen);
  timeline.add(time, faces);
  timeline.draw(chosen);
  speak(faces);
}

const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
worker.addEventListener("error", () => say("The page's worker cannot start. Reload the page; if that does not help, look at what `mien serve` printed.", true));
worker.addEventListener("message", ({ data }) => {
  if (data.kind === "ready") return ready(data.model);
  if (data.kind === "failed") return say(`The networks cannot be loaded (${data.text}). Reload the page; is mien serve still running?`, true);
  if (data.run !== state.run) return data.bitmap?.close();
  if (data.kind === "unread") state.table.add(data.frame, data.time, [], "decode_error");
  else show(data);
  state.count++;
  if (player.kind === "image") finish(data.faces?.length ? "The photograph was looked at." : "No face was found in the photograph. Faces must be wider than about a tenth of it.");
  if (state.count % 30 === 1) pulse(data.ms);
  player.done();
});

function ready(model) {
  state.model = model;
  state.table = new FrameTable(model.columns, model.labels);
  cards = new Cards(at("cards"), model.labels, (id) => { state.chosen = id; });
  timeline = new Timeline(at("timeline"), at("shares"), model.labels);
  timeline.time = 0;
  timeline.draw(null);
  at("shares").textContent = "Nothing was recognised yet.";
  const terms = model.licenses.length ? ` Its terms: ${model.licenses.join("; ")}.` : "";
  at("model").textContent = `Model: ${model.name} (${model.backbone}), learned from ${model.sources.join(", ") || "data that it does not name"}.${terms}`;
  controls.camera.disabled = controls.file.disabled = false;
  say("Ready.");
}

const missing = lacking();
if (missing) {
  worker.terminate();
  say(missing, true);
}

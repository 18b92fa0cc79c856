// Frames in, faces out, away from the page's own thread. All files are fetched before it says "ready".
import * as ort from "./assets/ort.wasm.min.mjs";
import { blazeface } from "./blazeface.js";
import { Session } from "./session.js";
import { yunet } from "./yunet.js";

const DETECTORS = { blazeface, yunet };

ort.env.wasm.numThreads = 1; // threads would need a page isolated from all others, and gain nothing on networks this small
ort.env.wasm.wasmPaths = new URL("./assets/", import.meta.url).href;

const fetched = async (name) => {
  const answer = await fetch(name, { cache: "no-store" });
  if (!answer.ok) throw new Error(`${name}: ${answer.status}`);
  return answer;
};
const json = async (name) => (await fetched(name)).json();
const network = async (name) => {
  const data = new Uint8Array(await (await fetched(name)).arrayBuffer());
  return () => ort.InferenceSession.create(data, { executionProviders: ["wasm"], graphOptimizationLevel: "all" });
};

/** Runs a network on {input: [bytes or numbers, shape]}, and gives its outputs as flat arrays. */
async function run(net, inputs) {
  const tensor = ([data, shape]) => new ort.Tensor(data instanceof Uint8Array ? "uint8" : "float32", data, shape);
  const outputs = await net.run(Object.fromEntries(Object.entries(inputs).map(([name, value]) => [name, tensor(value)])));
  const values = Object.fromEntries(Object.entries(outputs).map(([name, tensor]) => [name, tensor.data.slice()]));
  Object.values(outputs).forEach((tensor) => tensor.dispose());
  return values;
}

async function start() {
  const [model, live, detector, openDetector, openModel] = await Promise.all(
    [json("model.json"), json("live.json"), json("detector.json"), network("detector.onnx"), network("model.onnx")],
  );
  const finder = await openDetector(), recogniser = await openModel(); // one after the other: they share one heap
  const { size } = model.crop;
  const session = new Session({
    model, live,
    detect: DETECTORS[detector.name](detector, (inputs) => run(finder, inputs)),
    recognise: (crops, n) => run(recogniser, { crops: [crops, [n, size, size, 3]] }),
  });
  await session.detect(new ImageData(640, 480)); // the first run of a network takes longer
  await session.recognise(new Uint8Array(3 * size * size), 1);
  return { model, live, session };
}

const canvas = new OffscreenCanvas(1, 1);
const context = canvas.getContext("2d", { willReadFrequently: true });

function pixels(bitmap) {
  if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) {
    canvas.width = bitmap.width;
    canvas.height = bitmap.height;
  }
  context.drawImage(bitmap, 0, 0);
  return context.getImageData(0, 0, bitmap.width, bitmap.height);
}

const started = start();
started.then(
  ({ model, live }) => postMessage({ kind: "ready", model, live }),
  (error) => postMessage({ kind: "failed", text: String(error.message ?? error) }),
);

async function answer(data) {
  const { session } = await started, begin = performance.now(), { run: number, frame, time, bitmap } = data;
  if (data.kind === "reset") return session.reset();
  try {
    const image = pixels(bitmap), read = performance.now() - begin;
    const { faces, ms } = await session.frame(image, time);
    postMessage({ kind: "faces", run: number, frame, time, bitmap, faces, ms: { read, ...ms, total: performance.now() - begin } }, [bitmap]);
  } catch (error) {
    postMessage({ kind: "unread", run: number, frame, time, text: String(error.message ?? error) });
  }
}

// One after the other: a network runs once at a time, and a reset must not come into the middle of a frame.
let last = Promise.resolve();
addEventListener("message", ({ data }) => { last = last.then(() => answer(data)); });

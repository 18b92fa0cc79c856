// What a user can do about what went wrong.

const SIMD = new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11]);

/** What this browser lacks, as a sentence; null when it has all. */
export function lacking() {
  if (typeof WebAssembly !== "object" || !WebAssembly.validate(SIMD)) {
    return "This browser has no WebAssembly with SIMD. Update it, or use a current Chrome, Edge, Firefox or Safari (16.4 or newer); " +
      "a lockdown mode or an extension may have turned WebAssembly off for this page.";
  }
  if (typeof OffscreenCanvas !== "function" || !("requestVideoFrameCallback" in HTMLVideoElement.prototype)) {
    return "This browser is too old for this page. Update it, or use a current Chrome, Edge, Firefox (132 or newer) or Safari (16.4 or newer).";
  }
  return null;
}

const CAMERA = {
  NotAllowedError: "The camera was not allowed. Press the camera's symbol in the address bar, allow it for this page, and press the button " +
    "again; on a Mac also look at System Settings, Privacy, Camera. A photograph or a video works without it.",
  NotFoundError: "No camera was found. Connect one and press the button again, or choose a photograph or a video.",
  NotReadableError: "The camera does not answer: another program may use it, or it was unplugged. Close that program and press the button again.",
  NotSupportedError: "This browser gives no camera to this page. Open it as http://127.0.0.1 or http://localhost.",
  OverconstrainedError: "The camera offers no image that this page can use. Try another one.",
};
const UNREADABLE = "This browser cannot read that file. Photographs in JPEG, PNG or WebP and videos in MP4 (H.264) or WebM work; " +
  "convert it, e.g. with: ffmpeg -i FILE out.mp4";

/** What to do about an error that a source gave. */
export function advice(kind, error) {
  if (kind === "camera" && CAMERA[error.name]) return CAMERA[error.name];
  if (kind === "camera") return `The camera cannot be opened (${error.name}). Press the button again, or choose a photograph or a video.`;
  return UNREADABLE;
}

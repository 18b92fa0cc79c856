// Where frames come from: a camera, a video file, a photograph. One frame is in flight at a time, always the newest.

const SLOWEST = 0.1; // of a video's speed
const LONGEST = 1920; // pixels: larger images are scaled down before they are looked at

/** A bitmap of what a video or an image file shows, at most LONGEST pixels long. */
async function bitmapOf(source, width, height) {
  const scale = LONGEST / Math.max(width, height);
  if (!(scale < 1)) return createImageBitmap(source);
  const size = { resizeWidth: Math.round(width * scale), resizeHeight: Math.round(height * scale), resizeQuality: "high" };
  return createImageBitmap(source, size);
}

export class Player {
  /** `frame({bitmap, time, frame})` gets each frame; `ended()` and `failed(error)` the end. */
  constructor(video, { frame, ended, failed }) {
    Object.assign(this, { video, frame, failed });
    this.reset();
    video.addEventListener("ended", () => this.kind && ended());
    video.addEventListener("error", () => this.kind === "file" && failed(new DOMException("The video cannot be decoded.", "EncodingError")));
    this.trackEnded = () => failed(new DOMException("The camera was taken away.", "NotReadableError"));
  }

  reset() {
    Object.assign(this, { kind: null, busy: false, newest: null, first: null, analysed: 0 });
  }

  /** Opens the camera; the browser asks the user first. */
  async camera() {
    const turn = this.begin("camera");
    if (!navigator.mediaDevices?.getUserMedia) throw new DOMException("", "NotSupportedError");
    const stream = await navigator.mediaDevices.getUserMedia({
      audio: false, video: { facingMode: "user", width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 60 } },
    });
    if (turn !== this.turn) return stream.getTracks().forEach((track) => track.stop()); // stopped while it was asked
    stream.getVideoTracks()[0].addEventListener("ended", this.trackEnded);
    this.video.srcObject = stream;
    await this.play(turn);
  }

  /** Plays a video file of the user's. */
  async file(file) {
    const turn = this.begin("file");
    this.address = URL.createObjectURL(file);
    this.video.src = this.address;
    await this.play(turn);
  }

  /** Looks at a photograph, once. */
  async image(file) {
    const turn = this.begin("image");
    const whole = await createImageBitmap(file);
    const bitmap = await bitmapOf(whole, whole.width, whole.height);
    if (turn === this.turn) this.frame({ bitmap, time: 0, frame: 0 });
  }

  begin(kind) {
    this.stop();
    this.kind = kind;
    return this.turn;
  }

  async play(turn) {
    this.watch(turn);
    try {
      await this.video.play();
    } catch (error) {
      if (turn === this.turn) throw error; // a stop interrupts play(): that is no failure
    }
  }

  watch(turn) {
    this.video.requestVideoFrameCallback((now, { mediaTime, presentedFrames }) => {
      if (turn !== this.turn) return;
      const moment = this.kind === "camera" ? now / 1000 : mediaTime;
      this.first ??= { moment, presentedFrames };
      if (this.kind === "file") this.pace();
      this.newest = { time: Math.max(0, moment - this.first.moment), frame: presentedFrames - this.first.presentedFrames };
      this.watch(turn);
      this.take(turn);
    });
  }

  /** Plays a file slower while frames are missed, so that its table has them all: nobody waits for it as for a camera. */
  pace() {
    const { playbackRate } = this.video;
    this.video.playbackRate = this.newest ? Math.max(SLOWEST, 0.7 * playbackRate) : Math.min(1, 1.02 * playbackRate);
  }

  async take(turn) {
    // A camera's first frame is announced before it can be read.
    if (this.busy || !this.newest || this.video.readyState < HTMLMediaElement.HAVE_CURRENT_DATA) return;
    this.busy = true;
    const newest = this.newest;
    this.newest = null;
    try {
      const bitmap = await bitmapOf(this.video, this.video.videoWidth, this.video.videoHeight);
      if (turn !== this.turn) return bitmap.close();
      this.analysed++;
      this.frame({ bitmap, ...newest });
    } catch (error) {
      if (turn === this.turn) this.failed(error);
    }
  }

  /** The frame that was handed out has been dealt with: the next one, if it is there already. */
  done() {
    this.busy = false;
    this.take(this.turn);
  }

  /** Ends what runs, and turns the camera off. */
  stop() {
    this.turn = (this.turn ?? 0) + 1;
    this.video.pause();
    this.video.srcObject?.getTracks().forEach((track) => {
      track.removeEventListener("ended", this.trackEnded);
      track.stop();
    });
    this.video.srcObject = null;
    this.video.playbackRate = 1;
    if (this.address) {
      this.kind = null; // an emptied video reports an error
      this.video.removeAttribute("src");
      this.video.load();
      URL.revokeObjectURL(this.address);
      this.address = null;
    }
    this.reset();
  }
}

"""A video, a camera or a folder of frames to an annotated video, a frame table and a summary."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

from mien.core.artifacts.framelog import frame_log
from mien.core.artifacts.videos import SessionSummary
from mien.core.config.live import LiveConfig
from mien.core.errors import InputError, UsageError
from mien.core.progress import meter, say, warn
from mien.runtime.readers import Reader, open_reader
from mien.runtime.recognizer import Recognizer
from mien.runtime.session import Session
from mien.runtime.video import VideoWriter


def _check_outputs(source: str, out: Path | None, log: Path | None) -> None:
    """Raise for outputs that cannot be written, before the first frame is read."""
    for path, flag, suffix in ((out, "--out", ".mp4"), (log, "--log", ".parquet")):
        if path is None:
            continue
        if path.is_dir() or path.suffix.lower() != suffix:
            raise UsageError(f"{flag} {path}.", rule=f"It is a file that ends in {suffix}.")
        if path.resolve() == Path(source).resolve():
            raise UsageError(f"The output is the input, {source}.", rule="A video is never written over itself.")


def run(
    source: str, model: Path | None, config: LiveConfig, *, out: Path | None = None, log: Path | None = None
) -> SessionSummary:
    """Recognise a video or a folder of frames to its end (or a camera until Ctrl-C); returns the summary.

    After an error in the middle, a full disk too, the video and the tables hold what was recognised until then;
    the error is raised.
    """
    recognizer = Recognizer.load(model, detect=config)
    _check_outputs(source, out, log)
    reader = open_reader(source, config.frame_rate)
    started, interrupted, failure = time.perf_counter(), False, None
    with ExitStack() as stack:
        writer = stack.enter_context(VideoWriter(out, reader.fps)) if out else None
        session = Session(recognizer, config.rules)
        if log:
            session.tables = stack.enter_context(frame_log(log, session.meta(source)))
        try:
            _frames(session, reader, writer, config.max_frames)
        except KeyboardInterrupt:
            interrupted = True
            say("stopped; what was recognised so far is written")
        except Exception as error:
            if not session.frames:
                raise
            failure = error
            say(f"an error after {session.frames} frames; what was recognised until then is written")
        if session.frames == session.unreadable and not interrupted:
            raise InputError(
                f"No frame of {source} can be read.", rule="--input is a whole video file or a working camera."
            )
    if failure is not None:
        raise failure
    whole = not (session.frames == config.max_frames or reader.endless or interrupted)
    dropped = max(0, reader.expected - session.frames + session.unreadable) if whole else reader.missed
    return session.summary(time.perf_counter() - started, dropped)


def _frames(session: Session, reader: Reader, writer: VideoWriter | None, limit: int | None) -> None:
    """All frames of a reader through a session, at most `limit`."""
    with meter("frames", min(reader.expected, limit or reader.expected)) as progress:
        for frame in reader:
            session.frame(frame, draw=writer is not None)
            if frame.error:
                warn(frame.error)
            if writer and frame.rgb is not None:
                writer.write(frame.rgb, frame.time_s)
            progress.advance()
            if session.frames == limit:
                return
    if session.frames > session.unreadable and not session.with_face:
        warn(
            "No face was found in any frame. Faces smaller than about a tenth of the frame need a larger --detect-side."
        )

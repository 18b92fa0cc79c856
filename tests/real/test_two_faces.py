"""Two faces made from one real video, found by a real detector: who is who by position and motion alone."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from helpers.matroska import write_matroska
from helpers.models import colour_model
from mien.core.artifacts.framelog import read_frame_log
from mien.core.config.live import LiveConfig
from mien.stages import live

pytestmark = pytest.mark.real
RATE, WIDTH, HEIGHT, SIDE = 24, 640, 270, 150


@pytest.fixture(scope="module")
def faces(real_data):
    """Two faces of one woman, seconds apart: face and hair alone, (150, 150, 3) RGB."""
    file = real_data / "woman_sad_to_happy.mp4"
    if not file.is_file():
        pytest.skip(f"no {file.name} at {real_data}")
    capture, found = cv2.VideoCapture(str(file)), []
    for number in (5, 330):
        capture.set(cv2.CAP_PROP_POS_FRAMES, number)
        frame = capture.read()[1][:, 270:630, ::-1]
        found.append(np.ascontiguousarray(cv2.resize(frame, (SIDE, SIDE), interpolation=cv2.INTER_AREA)))
    return found


def scene(path, faces, paths, seconds):
    """Write a video of faces whose left edge at a time `paths` give, None where absent; the first is in front."""
    frames = []
    for k in range(round(seconds * RATE)):
        canvas = np.full((HEIGHT, WIDTH, 3), 60, np.uint8)
        for face, place, top in reversed(list(zip(faces, paths, (40, 60), strict=True))):
            x = place(k / RATE)
            if x is None:
                continue
            left, right = max(0, round(x)), min(WIDTH, round(x) + SIDE)
            canvas[top : top + SIDE, left:right] = face[:, left - round(x) : right - round(x)]
        frames.append(canvas)
    return write_matroska(path, frames, [round(1000 * k / RATE) for k in range(len(frames))])


def numbers(tmp_path, faces, paths, seconds):
    """(time, number) of each of the two where they are apart; and how many identities there are."""
    file = scene(tmp_path / "two.mkv", faces, paths, seconds)
    log = tmp_path / "two.parquet"
    done = live.run(str(file), colour_model(tmp_path / "m.onnx"), LiveConfig(), log=log)
    seen = [[], []]
    for row in read_frame_log(log).to_pylist():
        places = [path(row["time_s"]) for path in paths]
        if row["face_id"] is None or (None not in places and abs(places[0] - places[1]) < SIDE):
            continue
        middle = row["x"] + row["w"] / 2 - SIDE / 2
        # Up to the next search a face that has just left is still followed: near to nobody.
        for who, place in enumerate(places):
            if place is not None and abs(middle - place) < SIDE / 3:
                seen[who].append((row["time_s"], row["face_id"]))
    return seen, done["identities"]


def test_crossing_at_speed_they_keep_their_numbers(tmp_path, faces):
    seen, identities = numbers(tmp_path, faces, [lambda t: 10 + 480 * t, lambda t: 480 - 480 * t], 1.0)
    assert identities == 2
    for course in seen:
        assert len({n for _, n in course}) == 1
        assert course[0][0] < 0.3
        assert course[-1][0] > 0.7


def test_gone_for_a_second_the_same_and_for_five_a_new_one(tmp_path, faces):
    def goes(t):
        return None if 1 <= t < 2 or 3 <= t < 8 else 60.0

    (she, he), identities = numbers(tmp_path, faces, [goes, lambda t: 400.0], 9)
    assert identities == 3
    assert len({n for _, n in he}) == 1
    first, second, third = ({n for t, n in she if a <= t < b} for a, b in ((0, 1), (2, 3), (8, 9)))
    assert first == second
    assert len(first) == len(third) == 1
    assert not third & (first | {n for _, n in he})

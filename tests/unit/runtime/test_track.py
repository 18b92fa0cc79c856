"""Faces keep their numbers: by position and motion alone, on boxes of known persons."""

from __future__ import annotations

import numpy as np
import pytest

from mien.core.config.live import LiveRules
from mien.runtime.detect import Detection
from mien.runtime.motion import Motion
from mien.runtime.track import Tracker, overlap

SIDE = 80.0


def box(x, y, side=SIDE):
    return (x - side / 2, y - side / 2, side, side)


def run(paths, *, seconds, rate=25.0, noise=0.02, seed=0, **rules):
    """Numbers that each person has, [(time, number) …] by name, and the tracker.

    `paths` gives a person's centre at a time, or None. Detections are noisy, in random order; of two boxes that
    overlap by half or more, a detector gives one.
    """
    rng, tracker = np.random.default_rng(seed), Tracker(LiveRules(**rules))
    seen = {name: [] for name in paths}
    for k in range(round(seconds * rate)):
        moment = k / rate
        places = {name: path(moment) for name, path in paths.items() if path(moment) is not None}
        if tracker.due:
            found = []
            for name in rng.permutation(list(places)):
                noisy = box(*(places[name] + rng.normal(0, noise * SIDE, 2)))
                if all(overlap(noisy, d.box) < 0.5 for d in found):
                    found.append(Detection(noisy, 0.95))
            tracked = tracker.update(found, moment)
        else:
            tracked = tracker.follow(moment)
        for name, place in places.items():
            near = [t for t in tracked if np.hypot(*(np.array(t.detection.box[:2]) + SIDE / 2 - place)) < SIDE / 4]
            rivals = [p for other, p in places.items() if other != name and np.hypot(*(p - place)) < SIDE]
            if near and not rivals:  # while they cover each other nobody can tell
                seen[name].append((moment, near[0].face_id))
    return seen, tracker


def numbers(seen):
    return {name: sorted({face_id for _, face_id in course}) for name, course in seen.items()}


def straight(start, speed):
    return lambda t: np.array(start, float) + np.array(speed, float) * t


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("speed", [80.0, 240.0, 480.0])
def test_crossing_faces_keep_their_numbers(speed, seed):
    """Two faces pass through each other, at one to six box sides a second each."""
    width = 400.0
    paths = {"left": straight((50, 100), (speed, 4)), "right": straight((50 + width, 104), (-speed, -4))}
    seen, tracker = run(paths, seconds=width / speed, seed=seed)
    assert numbers(seen) == {"left": seen["left"][:1] and [seen["left"][0][1]], "right": [seen["right"][0][1]]}
    assert tracker.identities == 2
    assert min(len(course) for course in seen.values()) > 0.5 * 25 * width / speed


@pytest.mark.parametrize("seed", range(3))
def test_away_for_a_second_and_back_is_the_same_face(seed):
    paths = {
        "she": lambda t: None if 2 <= t < 3 else np.array([100 + 30 * min(t, 2), 100.0]),
        "he": straight((400, 100), (0, 0)),
    }
    seen, tracker = run(paths, seconds=5, seed=seed)
    assert numbers(seen) == {"she": [seen["she"][0][1]], "he": [seen["he"][0][1]]}
    assert tracker.identities == 2
    assert seen["she"][-1][0] > 4.9


@pytest.mark.parametrize("seed", range(3))
def test_away_for_five_seconds_is_a_new_face_and_who_stays_is_not_renumbered(seed):
    paths = {"she": lambda t: None if 2 <= t < 7 else np.array([100.0, 100.0]), "he": straight((250, 100), (0, 0))}
    seen, tracker = run(paths, seconds=9, seed=seed)
    before, after = ({i for t, i in seen["she"] if (t < 5) == early} for early in (True, False))
    he = {i for _, i in seen["he"]}
    assert len(before) == len(after) == len(he) == 1
    assert not (before & after) | ((before | after) & he)
    assert tracker.identities == 3


@pytest.mark.parametrize("seed", range(3))
def test_who_takes_the_place_of_one_that_left_keeps_the_own_number(seed):
    """She leaves at 1 s; he, who stays in view, moves to where she was."""
    paths = {
        "she": lambda t: None if t >= 1 else np.array([100.0, 100.0]),
        "he": lambda t: np.array([350 - 160 * min(t, 1.5), 100.0]),
    }
    seen, tracker = run(paths, seconds=3, seed=seed)
    assert len(numbers(seen)["he"]) == 1
    assert tracker.identities == 2


def test_a_still_face_is_searched_in_each_nth_frame_and_a_fast_one_in_each():
    def searches(speed, every):
        tracker, count = Tracker(LiveRules(detect_every=every)), 0
        for k in range(60):
            count += tracker.due
            face = Detection(box(100 + speed * k / 30, 100), 0.9)
            tracker.update([face], k / 30) if tracker.due else tracker.follow(k / 30)
        return count

    assert searches(0, 3) == pytest.approx(60 / 3 + 2, abs=2)
    assert searches(0, 1) == 60
    assert searches(500, 3) == 60


def test_a_face_that_is_missing_is_searched_in_each_frame_until_it_is_given_up():
    tracker, due = Tracker(LiveRules(detect_every=4, patience=0.5)), []
    for k in range(60):
        due.append(tracker.due)
        found = [Detection(box(100, 100), 0.9)] if k < 20 else []
        tracker.update(found, k / 25) if tracker.due else tracker.follow(k / 25)
    assert sum(due[:20]) < 10
    first = due.index(True, 20)
    assert all(due[first : 20 + 12])
    assert sum(due[40:]) == 5


def test_a_doubtful_detection_continues_a_face_and_starts_none():
    tracker = Tracker(LiveRules(detect_every=1, start_confidence=0.8))
    assert tracker.update([Detection(box(100, 100), 0.7)], 0.0) == []
    (face,) = tracker.update([Detection(box(100, 100), 0.9)], 0.04)
    assert [t.face_id for t in tracker.update([Detection(box(102, 100), 0.5)], 0.08)] == [face.face_id]


def test_a_second_box_on_one_face_is_no_second_face():
    tracker = Tracker(LiveRules())
    assert len(tracker.update([Detection(box(100, 100), 0.9), Detection(box(110, 104), 0.8)], 0.0)) == 1


def test_boxes_that_are_none_are_left_out():
    tracker = Tracker(LiveRules())
    odd = [(float("nan"), 0, 9, 9), (5, 5, 0, 20), (0, 0, float("inf"), 9)]
    assert tracker.update([Detection(b, 0.9) for b in odd], 0.0) == []


def test_motion_equals_the_textbook_kalman_filter():
    """One axis with state (position, velocity), matrices as in any textbook, in pixels."""
    rules, rng = LiveRules(box_noise=0.03, acceleration=6.0), np.random.default_rng(3)
    times = np.cumsum(rng.uniform(0.02, 0.2, 20))
    places = 100 + 60 * times + rng.normal(0, 2, 20)
    motion = Motion(box(places[0], 50), times[0], rules)
    state, spread = np.array([places[0], 0.0]), np.diag([(0.03 * SIDE) ** 2, (4 * SIDE) ** 2])
    for before, now, z in zip(times, times[1:], places[1:], strict=False):
        dt = now - before
        f, g, h = np.array([[1, dt], [0, 1]]), np.array([[dt**2 / 2], [dt]]), np.array([[1.0, 0.0]])
        state, spread = f @ state, f @ spread @ f.T + g @ g.T * (6.0 * SIDE) ** 2
        k = spread @ h.T @ np.linalg.inv(h @ spread @ h.T + (0.03 * SIDE) ** 2)
        state, spread = state + (k @ (z - h @ state)), (np.eye(2) - k @ h) @ spread
        motion.correct(box(z, 50), now)
        assert motion.centre[0] == pytest.approx(state[0], rel=1e-9)
    assert motion.centre_at(times[-1] + 0.1)[0] == pytest.approx(state[0] + 0.1 * state[1], rel=1e-9)


def test_landmarks_move_with_the_box():
    tracker = Tracker(LiveRules(detect_every=9, start_confidence=0))
    eyes = np.array([[90, 90], [110, 90]], np.float32)
    for k in range(6):
        (face,) = tracker.update([Detection(box(100 + 8 * k, 100), 0.9, eyes + [8 * k, 0])], k / 25)
    (later,) = tracker.follow(6 / 25)
    assert later.detection.landmarks == pytest.approx(eyes + [48, 0], abs=1.5)
    assert not later.measured
    assert face.measured


def test_overlap():
    assert overlap((0, 0, 10, 10), (0, 0, 10, 10)) == 1
    assert overlap((0, 0, 10, 10), (5, 0, 10, 10)) == pytest.approx(1 / 3)
    assert overlap((0, 0, 10, 10), (20, 0, 10, 10)) == 0

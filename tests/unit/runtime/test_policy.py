"""Filters, hysteresis, dwell and abstention; `live.json` as the one place of their parameters."""

from __future__ import annotations

import json

import numpy as np
import pytest

from helpers import naive_policy
from mien.core.config.live import SHIPPED_RULES, LiveConfig, LiveRules
from mien.core.errors import ConfigError
from mien.core.labels import LABELS
from mien.runtime.policy import LabelPolicy, thresholds_of
from mien.runtime.smooth import Ema, OneEuro

TRACES = json.loads(naive_policy.FILE.read_text(encoding="utf-8"))["traces"]
HAPPY, SAD = np.eye(7)[LABELS.index("happy")] * 6, np.eye(7)[LABELS.index("sad")] * 6


def policy(*, thresholds=None, **changes):
    return LabelPolicy(LiveRules(**changes), np.zeros(7) if thresholds is None else thresholds)


@pytest.mark.parametrize("trace", TRACES, ids=lambda t: t["name"])
def test_golden_traces(trace):
    """The file, the plain implementation and the package's agree in every frame."""
    probabilities, labels = naive_policy.replay(trace["rules"], trace["thresholds"], trace["times"], trace["logits"])
    assert labels == trace["labels"]
    np.testing.assert_allclose(probabilities, trace["probabilities"], atol=1e-6)
    ours = policy(thresholds=np.array(trace["thresholds"]), **trace["rules"])
    for k, (moment, row) in enumerate(zip(trace["times"], trace["logits"], strict=True)):
        p, label = ours.update(np.array(row), moment)
        assert label == trace["labels"][k], k
        np.testing.assert_allclose(p, trace["probabilities"][k], atol=1e-6)


def test_the_traces_meet_what_they_are_for():
    """Every trace but the one of an odd frame changes its label; some are unsure in places."""
    for trace in TRACES:
        changes = sum(a != b for a, b in zip(trace["labels"], trace["labels"][1:], strict=False))
        assert (changes == 0) == (trace["name"] == "one odd frame"), trace["name"]
    assert sum(None in trace["labels"] for trace in TRACES) >= 4


def test_live_json_holds_every_rule_and_nothing_else():
    assert set(SHIPPED_RULES) == set(LiveRules.model_fields)
    assert LiveRules().model_dump() == SHIPPED_RULES
    assert LiveConfig().rules == LiveRules()
    assert LiveConfig(dwell=0.7, detector="haar").rules.dwell == 0.7


@pytest.mark.parametrize(
    "wrong, said",
    [({"thresholds": {"glad": 0.5}}, "glad"), ({"dwel": 1}, "dwell"), ({"thresholds": {"sad": 2}}, "between 0 and 1")],
)
def test_wrong_rules_are_refused_in_words(wrong, said):
    with pytest.raises(ConfigError, match=said):
        LiveRules.parse(wrong, where="live.json")


def test_one_euro_equals_the_papers_recurrence():
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1, (30, 1)).cumsum(0)
    smooth = OneEuro(cutoff=1.0, beta=0.5)
    found = [float(smooth(v, i / 25)[0]) for i, v in enumerate(values)]

    def gain(cutoff):
        tau = 1 / (2 * np.pi * cutoff)
        return 1 / (1 + tau * 25)

    x, dx = values[0, 0], 0.0
    expected = [x]
    for v in values[1:, 0]:
        dx = gain(1.0) * ((v - x) * 25) + (1 - gain(1.0)) * dx
        a = gain(1.0 + 0.5 * abs(dx))
        x = a * v + (1 - a) * x
        expected.append(x)
    assert found == pytest.approx(expected)


def test_an_ema_follows_a_step_alike_at_any_frame_rate():
    for rate in (5, 30, 240):
        smooth = Ema(time_constant=0.4)
        smooth(np.zeros(1), 0.0)
        for k in range(1, 2 * rate + 1):
            found = smooth(np.ones(1), k / rate)
        assert float(found[0]) == pytest.approx(1 - np.exp(-2 / 0.4))


def test_a_lasting_change_is_shown_after_the_dwell_and_not_before():
    s = policy(filter="none", dwell=0.3)
    labels = [s.update(HAPPY if k < 25 else SAD, k / 25)[1] for k in range(75)]
    assert labels == ["happy"] * 33 + ["sad"] * 42  # 0.3 s at 25 frames a second are 8 frames


def test_unsure_faces_get_no_label():
    p, label = policy(thresholds=np.full(7, 0.9)).update(np.zeros(7), 0.0)
    assert label is None
    assert p == pytest.approx(np.full(7, 1 / 7))


def test_a_shown_label_is_kept_a_little_below_its_threshold():
    def at(p):  # logits whose softmax gives happy this probability
        return np.log(np.where(np.arange(7) == LABELS.index("happy"), p, (1 - p) / 6))

    course = [0.55, 0.62, 0.55, 0.51, 0.49, 0.49, 0.55, 0.62]
    s = policy(filter="none", dwell=0.0, release=0.1, thresholds=np.full(7, 0.6))
    labels = [s.update(at(p), k / 10)[1] for k, p in enumerate(course)]
    assert labels == [None, "happy", "happy", "happy", None, None, None, "happy"]


def test_the_higher_of_both_thresholds_counts():
    rules = LiveRules(thresholds={"fear": 0.7, "sad": 0.3})
    model = np.full(7, 0.5)
    assert thresholds_of(rules, model).tolist() == [0.5, 0.5, 0.7, 0.5, 0.5, 0.5, 0.5]

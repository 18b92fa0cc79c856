"""Paired comparisons of variants: against SciPy's paired t-test, a regression, and a naive Holm."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mien.evaluate.comparison import compare, holm

RNG = np.random.default_rng(0)


def test_two_variants_are_a_paired_t_test():
    scores = RNG.normal(0.4, 0.02, (2, 5))
    (none, found) = compare(scores, 0, np.zeros((2, 2)))
    expected = stats.ttest_rel(scores[1], scores[0])
    assert none is None
    assert found.p == pytest.approx(expected.pvalue, rel=1e-9)
    low, high = expected.confidence_interval(0.95)
    assert found.ci95 == pytest.approx((low, high), rel=1e-9)
    assert found.per_seed == pytest.approx(scores[1] - scores[0])


def test_several_variants_are_a_regression_on_variants_and_seeds():
    """The standard error equals that of least squares with a dummy for each variant and each seed."""
    scores = RNG.normal(0.4, 0.02, (5, 3)) + np.array([0, 0.2, 0, -0.02, 0])[:, None] + np.array([0, 0.03, -0.01])
    rows, design = [], []
    for v in range(5):
        for s in range(3):
            rows.append(scores[v, s])
            design.append([1.0, *(float(v == k) for k in (0, 1, 3, 4)), *(float(s == k) for k in (1, 2))])
    x, y = np.array(design), np.array(rows)
    beta, residual, _, _ = np.linalg.lstsq(x, y, rcond=None)
    freedom = 15 - 7
    cov = np.linalg.inv(x.T @ x) * residual[0] / freedom
    found = compare(scores, 2, np.zeros((5, 2)))
    for place, v in enumerate((0, 1, 3, 4), 1):
        assert found[v].mean == pytest.approx(beta[place], abs=1e-12)
        p = 2 * stats.t.sf(abs(beta[place]) / np.sqrt(cov[place, place]), freedom)
        assert found[v].p == pytest.approx(p, rel=1e-9)
    assert found[1].p_holm < 0.05 < found[0].p_holm


def test_what_cannot_be_compared():
    with pytest.raises(ValueError, match="two variants and two seeds"):
        compare(np.zeros((3, 1)), 0, np.zeros((3, 2)))
    same = compare(np.tile([0.3, 0.4], (3, 1)), 0, np.zeros((3, 2)))
    assert same[1].mean == 0
    assert same[1].p == same[1].p_holm == 1.0


def test_images_count_where_seeds_agree():
    """Seeds that differ by nothing: the interval is that of the images, and p that of a normal difference."""
    scores = np.array([[0.4, 0.4, 0.4], [0.43, 0.43, 0.43]])
    draws = np.stack([np.full(4000, 0.4), 0.43 + RNG.normal(0, 0.02, 4000)])
    found = compare(scores, 0, draws)[1]
    error = draws[1].std(ddof=1)
    assert found.ci95 == pytest.approx((0.03 - 1.959964 * error, 0.03 + 1.959964 * error), abs=1e-6)
    assert found.p == pytest.approx(2 * stats.norm.sf(0.03 / error), rel=1e-6)


@pytest.mark.slow
def test_a_comparison_covers_images_and_seeds_together():
    """Two variants alike, on 400 images that suit one or the other; seeds differ as well."""
    rng, n, inside, repeats = np.random.default_rng(3), 400, 0, 300
    for _ in range(repeats):
        suits = rng.normal(0, 0.6, n)[None, None] * np.array([0.5, -0.5])[:, None, None]
        hits = rng.normal(0, 0.9, n) + suits + rng.normal(0, 0.05, (2, 3, 1)) + rng.normal(0, 0.3, (2, 3, n)) > 0
        counts = rng.multinomial(n, np.full(n, 1 / n), 150)
        found = compare(hits.mean(2), 0, (hits.mean(1) @ counts.T) / n)[1]
        inside += found.ci95[0] <= 0 <= found.ci95[1]
        assert (found.p < 0.05) == (not found.ci95[0] <= 0 <= found.ci95[1])
    assert inside / repeats > 0.91  # 95 % less three standard errors


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm(p):
    n = len(p)
    order = sorted(range(n), key=lambda i: p[i])
    worst, expected = 0.0, [0.0] * n
    for rank, i in enumerate(order):
        worst = max(worst, (n - rank) * p[i])
        expected[i] = min(1.0, worst)
    assert holm(np.array(p)) == pytest.approx(expected)

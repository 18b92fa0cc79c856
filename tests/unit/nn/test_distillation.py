"""Distillation losses against naive float64 loops, and what they must not depend on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mien.core.config.train import DistillConfig
from mien.nn.distillation.losses import decoupled_kl, kl_divergence, make_distillation_loss, standardized_kl

T = 3.0


@pytest.fixture
def logits():
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(6, 7, dtype=torch.float64, generator=generator) for _ in range(2))
    return student, torch.log_softmax(2 * teacher, 1)


@pytest.fixture
def target():
    """One-hot targets, and one of a mixed image whose larger share is class 5."""
    out = torch.eye(7, dtype=torch.float64)[[0, 3, 6, 3, 1, 5]]
    out[5] = torch.tensor([0, 0, 0.4, 0, 0, 0.6, 0], dtype=torch.float64)
    return out


def probabilities(row, temperature=T):
    exp = [np.exp(z / temperature) for z in row]
    return [e / sum(exp) for e in exp]


def divergence(q, p):
    return sum(a * (np.log(a) - np.log(b)) for a, b in zip(q, p, strict=True))


def naive_kl(student, teacher):
    rows = zip(student.tolist(), teacher.tolist(), strict=True)
    return np.mean([divergence(probabilities(t), probabilities(s)) for s, t in rows]) * T**2


def naive_dkd(student, teacher, target, alpha, beta):
    total = 0.0
    for s, t, y in zip(student.tolist(), teacher.tolist(), target.tolist(), strict=True):
        c = int(np.argmax(y))
        p, q = probabilities(s), probabilities(t)
        total += alpha * divergence([q[c], 1 - q[c]], [p[c], 1 - p[c]])
        others = [[x / (1 - w[c]) for k, x in enumerate(w) if k != c] for w in (q, p)]
        total += beta * divergence(*others)
    return total / len(student) * T**2


def test_kl_divergence_equals_a_naive_loop(logits):
    student, teacher = logits
    assert float(kl_divergence(student, teacher, T)) == pytest.approx(naive_kl(student, teacher), rel=1e-9)
    assert float(kl_divergence(teacher, teacher, T)) == pytest.approx(0, abs=1e-9)


def test_standardized_kl_equals_a_naive_loop_and_ignores_shift_and_scale(logits):
    student, teacher = logits
    scored = [
        torch.tensor([[(z - np.mean(row)) / (np.std(row) + 1e-7) for z in row] for row in x.tolist()]) for x in logits
    ]
    assert float(standardized_kl(student, teacher, T)) == pytest.approx(naive_kl(*scored), rel=1e-6)
    assert float(standardized_kl(5 * student + 1, teacher, T)) == pytest.approx(
        float(standardized_kl(student, teacher, T)), rel=1e-5
    )


def test_decoupled_kl_equals_a_naive_loop(logits, target):
    student, teacher = logits
    for alpha, beta in ((1.0, 8.0), (1.0, 0.0), (0.0, 2.0)):
        found = float(decoupled_kl(student, teacher, target, T, alpha=alpha, beta=beta))
        assert found == pytest.approx(naive_dkd(student, teacher, target, alpha, beta), rel=1e-9)


def test_decoupled_kl_is_kl_where_beta_is_what_kl_gives_the_other_classes(logits, target):
    """KL = TCKD + (1 - q_target) NCKD (the paper's eq. 5), row by row."""
    for row in range(len(target)):
        student, teacher = (x[row : row + 1] for x in logits)
        rest = 1 - probabilities(teacher[0].tolist())[int(target[row].argmax())]
        joined = decoupled_kl(student, teacher, target[row : row + 1], T, alpha=1.0, beta=rest)
        assert float(joined) == pytest.approx(float(kl_divergence(student, teacher, T)), rel=1e-9)


@pytest.mark.parametrize("kind", ["kl", "standardized", "dkd"])
def test_gradients_and_extreme_logits(kind, logits, target):
    loss = make_distillation_loss(DistillConfig(kd_loss=kind, kd_temperature=T, dkd_alpha=1.0, dkd_beta=4.0))
    student, teacher = logits
    assert torch.autograd.gradcheck(lambda v: loss(v, teacher, target), (student.clone().requires_grad_(),))
    sure = torch.log_softmax(torch.eye(7)[[0, 3, 6, 3, 1, 5]] * 200, 1)
    for extreme in (torch.zeros(6, 7), torch.eye(7)[[1, 2, 3, 4, 5, 6]] * 1e4):
        extreme.requires_grad_()
        value = loss(extreme, sure, target.float())
        value.backward()
        assert value.isfinite()
        assert extreme.grad.isfinite().all()

"""Heads and losses against naive float64 loops, and gradients by finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mien.nn.heads import ArcFaceHead, LinearHead, make_head, margin_at
from mien.nn.losses import distillation, smooth, soft_cross_entropy

torch.manual_seed(0)
SOFT = torch.tensor([[1.0, 0, 0], [0, 0.7, 0.3], [0.2, 0.3, 0.5], [0, 0, 1.0]], dtype=torch.float64)


def naive_arcface(x, w, target, s, m):
    out = []
    for i in range(len(x)):
        row = []
        for c in range(len(w)):
            cos = float(np.dot(x[i], w[c]) / np.linalg.norm(x[i]) / np.linalg.norm(w[c]))
            theta = math.acos(max(-1.0, min(1.0, cos)))
            shifted = math.cos(theta + m) if theta + m < math.pi else cos - m * math.sin(m)
            row.append(s * ((1 - target[i][c]) * cos + target[i][c] * shifted))
        out.append(row)
    return np.array(out)


@pytest.mark.parametrize("target", [SOFT, torch.eye(3, dtype=torch.float64)[[0, 1, 2, 0]]], ids=["soft", "hard"])
@pytest.mark.parametrize("margin", [0.0, 0.2, 0.9])
def test_arcface_equals_a_naive_loop(target, margin):
    head = ArcFaceHead(5, 3, 10.0).double()
    x = torch.randn(4, 5, dtype=torch.float64)
    x[3] = -head.weight[2].detach()  # the angle to its own class is pi: beyond pi - m
    found = head(x, target, margin).detach().numpy()
    expected = naive_arcface(x.numpy(), head.weight.detach().numpy(), target.numpy(), 10.0, margin)
    assert found == pytest.approx(expected, abs=1e-6)


def test_without_a_target_there_is_no_margin():
    head = ArcFaceHead(5, 3, 7.0)
    x = torch.randn(4, 5)
    assert torch.equal(head(x), head(x, SOFT.float(), 0.0))
    assert not torch.allclose(head(x), head(x, SOFT.float(), 0.3))
    assert head(x).abs().max() <= 7.0001


@pytest.mark.parametrize("name", ["arcface", "linear"])
def test_gradients(name):
    head = make_head(name, 5, 3, scale=4.0).double()
    x = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: soft_cross_entropy(head(v, SOFT, 0.2), SOFT), (x,))


def test_heads_compute_in_fp32_under_autocast():
    for head in (ArcFaceHead(5, 3, 7.0), LinearHead(5, 3)):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert head(torch.randn(4, 5, dtype=torch.bfloat16)).dtype == torch.float32


def test_cross_entropy_of_one_hot_is_torchs():
    z = torch.randn(4, 3)
    y = torch.tensor([0, 1, 2, 0])
    assert soft_cross_entropy(z, torch.eye(3)[y]) == pytest.approx(
        float(torch.nn.functional.cross_entropy(z, y)), abs=1e-6
    )
    smoothed = float(torch.nn.functional.cross_entropy(z, y, label_smoothing=0.1))
    assert soft_cross_entropy(z, smooth(torch.eye(3)[y], 0.1)) == pytest.approx(smoothed, abs=1e-6)


def test_distillation_equals_a_naive_loop():
    s, t = torch.randn(6, 7, dtype=torch.float64), torch.randn(6, 7, dtype=torch.float64)
    total = 0.0
    for i in range(6):
        p = np.exp(s[i].numpy() / 3) / np.exp(s[i].numpy() / 3).sum()
        q = np.exp(t[i].numpy() / 3) / np.exp(t[i].numpy() / 3).sum()
        total += (q * np.log(q / p)).sum() * 9 / 6
    assert float(distillation(s, t, 3.0)) == pytest.approx(total, abs=1e-10)
    assert float(distillation(t, t, 3.0)) == pytest.approx(0, abs=1e-12)
    s.requires_grad_()
    assert torch.autograd.gradcheck(lambda v: distillation(v, t, 3.0), (s,))


def test_margin_schedule():
    def at(epoch):
        return margin_at(epoch, margin=0.3, plain=2, ramp=4)

    assert [at(e) for e in (0, 1.99, 2, 4, 6, 99)] == pytest.approx([0, 0, 0, 0.15, 0.3, 0.3])
    assert margin_at(2, margin=0.3, plain=2, ramp=0) == 0.3

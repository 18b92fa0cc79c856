"""Heads and losses against naive float64 loops, and gradients by finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mien.core.config.train import DistillConfig, TrainConfig
from mien.nn.models.heads import CosineHead, JointHead, LinearHead, make_head, ramp
from mien.nn.training.losses import CenterLoss, focal, make_loss, prior_adjusted, smooth, soft_cross_entropy

SOFT = torch.tensor([[1.0, 0, 0], [0, 0.7, 0.3], [0.2, 0.3, 0.5], [0, 0, 1.0]], dtype=torch.float64)
HARD = torch.eye(3, dtype=torch.float64)[[0, 1, 2, 0]]
TARGETS = pytest.mark.parametrize("target", [SOFT, HARD], ids=["soft", "hard"])
PRIOR = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
HEADS = ("linear", "arcface", "cosface", "subcenter", "joint")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def settings(kind=TrainConfig, **changes):
    return kind(**{"scale": 4.0, "subcenters": 2} | changes)


def naive_cosines(x, w, centers=1):
    out = []
    for row in x:
        cosines = [float(np.dot(row, c) / np.linalg.norm(row) / np.linalg.norm(c)) for c in w]
        out.append([max(cosines[k * centers : (k + 1) * centers]) for k in range(len(w) // centers)])
    return out


def naive_margin(cosines, target, s, m, kind):
    out = []
    for row, shares in zip(cosines, target, strict=True):
        new = []
        for cos, share in zip(row, shares, strict=True):
            theta = math.acos(max(-1.0, min(1.0, cos)))
            if kind == "cosface":
                shifted = cos - m
            else:
                shifted = math.cos(theta + m) if theta + m < math.pi else cos - m * math.sin(m)
            new.append(s * ((1 - share) * cos + share * shifted))
        out.append(new)
    return np.array(out)


@TARGETS
@pytest.mark.parametrize("margin", [0.0, 0.2, 0.9])
@pytest.mark.parametrize(("kind", "centers"), [("arcface", 1), ("cosface", 1), ("arcface", 3)])
def test_cosine_heads_equal_a_naive_loop(target, margin, kind, centers):
    head = CosineHead(5, 3, 10.0, kind=kind, centers=centers).double()
    x = torch.randn(4, 5, dtype=torch.float64)
    x[3] = -head.weight[2 * centers].detach()  # the angle to its own class is pi, or near it: beyond pi - m
    found = head(x, target, margin).detach().numpy()
    cosines = naive_cosines(x.numpy(), head.weight.detach().numpy(), centers)
    assert found == pytest.approx(naive_margin(cosines, target.numpy(), 10.0, margin, kind), abs=1e-6)


def test_without_a_target_there_is_no_margin():
    for kind in ("arcface", "cosface"):
        head = CosineHead(5, 3, 7.0, kind=kind)
        x = torch.randn(4, 5)
        assert torch.equal(head(x), head(x, SOFT.float(), 0.0))
        assert not torch.allclose(head(x), head(x, SOFT.float(), 0.3))
        assert head(x).abs().max() <= 7.0001
        assert torch.allclose(head(x, scale=14.0), 2 * head(x), atol=1e-5)


def test_a_share_of_the_target_is_a_share_of_the_margin():
    head = CosineHead(5, 3, 7.0).double().requires_grad_(False)
    x = torch.randn(1, 5, dtype=torch.float64)
    plain, full = head(x), head(x, torch.tensor([[1.0, 0, 0]], dtype=torch.float64), 0.4)
    half = head(x, torch.tensor([[0.5, 0.5, 0]], dtype=torch.float64), 0.4)
    assert half[0, 0] == pytest.approx(float((plain + full)[0, 0] / 2), abs=1e-12)
    assert half[0, 2] == plain[0, 2]


@TARGETS
@pytest.mark.parametrize("name", HEADS)
def test_gradients_of_heads(name, target):
    head = make_head(settings(head=name), 5, 3).double()
    x = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)

    def loss(v, *weights):
        if isinstance(head, JointHead):
            a, b = head.both(v, target, 0.2, None)
            return soft_cross_entropy(a, target) + soft_cross_entropy(b, target)
        return soft_cross_entropy(head(v, target, 0.2), target)

    assert torch.autograd.gradcheck(loss, (x, *head.parameters()))


def test_heads_compute_in_fp32_under_autocast():
    for name in HEADS:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert make_head(settings(head=name), 5, 3)(torch.randn(4, 5, dtype=torch.bfloat16)).dtype == torch.float32


def test_a_joint_head_predicts_by_its_linear_part():
    head = JointHead(5, 3, 7.0)
    x = torch.randn(4, 5)
    assert torch.equal(head(x), head.linear(x))
    assert torch.equal(head.both(x, SOFT.float(), 0.3, None)[1], head.arcface(x, SOFT.float(), 0.3))


def test_cross_entropy_of_one_hot_is_torchs():
    z = torch.randn(4, 3)
    y = torch.tensor([0, 1, 2, 0])
    assert soft_cross_entropy(z, torch.eye(3)[y]) == pytest.approx(
        float(torch.nn.functional.cross_entropy(z, y)), abs=1e-5
    )
    smoothed = float(torch.nn.functional.cross_entropy(z, y, label_smoothing=0.1))
    assert soft_cross_entropy(z, smooth(torch.eye(3)[y], 0.1)) == pytest.approx(smoothed, abs=1e-5)


def naive_loss(z, t, name, gamma=2.0, tau=1.0, prior=PRIOR):
    total = 0.0
    for row, shares in zip(z.tolist(), t.tolist(), strict=True):
        if name in ("balanced_softmax", "logit_adjusted"):
            weighted = [
                math.exp(v) * p ** (1.0 if name == "balanced_softmax" else tau)
                for v, p in zip(row, prior.tolist(), strict=True)
            ]
        else:
            weighted = [math.exp(v) for v in row]
        for share, w in zip(shares, weighted, strict=True):
            p = w / sum(weighted)
            total -= share * math.log(p) * ((1 - p) ** gamma if name == "focal" else 1.0)
    return total / len(z)


@TARGETS
@pytest.mark.parametrize("name", ["cross_entropy", "focal", "balanced_softmax", "logit_adjusted"])
def test_losses_equal_a_naive_loop_and_their_gradients_are_right(name, target):
    z = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    loss = make_loss(settings(loss=name, focal_gamma=1.5, logit_adjust_tau=0.7), PRIOR)
    assert float(loss(z, target).detach()) == pytest.approx(naive_loss(z, target, name, gamma=1.5, tau=0.7), abs=1e-10)
    assert torch.autograd.gradcheck(lambda v: loss(v, target), (z,))


def test_focal_without_focus_is_cross_entropy_and_stays_finite():
    z = torch.tensor([[200.0, -200.0, 0.0]], requires_grad=True)
    y = torch.eye(3)[[0]]
    for gamma in (0.0, 0.5, 2.0):
        value = focal(z, y, gamma)
        (gradient,) = torch.autograd.grad(value, z)
        assert torch.isfinite(value)
        assert torch.isfinite(gradient).all()
    z = torch.randn(4, 3, dtype=torch.float64)
    assert float(focal(z, SOFT, 0.0)) == pytest.approx(float(soft_cross_entropy(z, SOFT)), abs=1e-12)


def test_an_equal_prior_adjusts_nothing():
    z = torch.randn(4, 3, dtype=torch.float64)
    assert float(prior_adjusted(z, SOFT, torch.full((3,), 1 / 3), 1.0)) == pytest.approx(
        float(soft_cross_entropy(z, SOFT)), abs=1e-5
    )


@TARGETS
def test_center_loss_equals_a_naive_loop(target):
    center = CenterLoss(5, 3).double()
    torch.nn.init.normal_(center.centers)
    x = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    total = 0.0
    for row, shares in zip(x.detach().numpy(), target.numpy(), strict=True):
        for share, c in zip(shares, center.centers.detach().numpy(), strict=True):
            total += share * sum((a - b) ** 2 for a, b in zip(row, c, strict=True)) / 2
    assert float(center(x, target).detach()) == pytest.approx(total / 4, abs=1e-10)
    assert torch.autograd.gradcheck(lambda v, c: center(v, target), (x, center.centers))


def test_ramps():
    def at(epoch):
        return 0.3 * ramp(epoch, start=2, length=4)

    assert [at(e) for e in (0, 1.99, 2, 4, 6, 99)] == pytest.approx([0, 0, 0, 0.15, 0.3, 0.3])
    assert ramp(2, start=2, length=0) == 1.0


def test_a_linear_head_has_no_margin():
    head = LinearHead(5, 3)
    x = torch.randn(4, 5)
    assert torch.equal(head(x), head(x, SOFT.float(), 0.5))


def test_a_teacher_is_followed_without_the_margin():
    from mien.nn.models.network import make_network
    from mien.nn.training.objective import TrainingObjective

    chosen = settings(DistillConfig, backbone="cnn", head="arcface", kd_weight=1.0, kd_temperature=2.0, kd_loss="kl")
    network = make_network(chosen, crop_size=32, color="rgb")
    objective = TrainingObjective(network, chosen, torch.full((7,), 1 / 7)).eval()
    x, y = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8), torch.eye(7)[:4]
    with torch.no_grad():
        taught = network(x).log_softmax(1)
        for margin in (0.0, 0.5):
            assert float(objective(x, y, margin, None, taught)[0]) == pytest.approx(0, abs=1e-5)
        assert float(objective(x, y, 0.5, None)[0]) > float(objective(x, y, 0.0, None)[0])

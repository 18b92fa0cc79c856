"""Distillation losses: what a student's logits (b, k) lose against a teacher's log-probabilities (b, k), in nats."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from mien.core.config.train import DistillConfig

DistillationLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
_EPS = 1e-7  # added to a standard deviation, as in the published code


def kl_divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Mean KL(teacher || student) at `temperature`, times T² (Hinton et al. 2015, arXiv 1503.02531, section 2).

    Both are logits (b, k). The factor T² keeps the gradient's size the same for all T.
    """
    log_p = F.log_softmax(student / temperature, dim=1)
    log_q = F.log_softmax(teacher / temperature, dim=1)
    return (log_q.exp() * (log_q - log_p)).sum(1).mean() * temperature**2


def standardized_kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """`kl_divergence` of z-scored logits: logit standardisation (Sun et al. 2024, arXiv 2403.01427, eq. 11).

    Each row is centred and divided by its standard deviation (over k, without Bessel's correction), so that the student
    learns the teacher's ranking and relative differences, not its confidence.
    """
    return kl_divergence(_standardize(student), _standardize(teacher), temperature)


def _standardize(logits: Tensor) -> Tensor:
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    centred = logits - logits.mean(1, keepdim=True)
    # The gradient of a root at 0 is infinite: a row of equal logits stays as it is.
    deviation = centred.square().mean(1, keepdim=True).clamp_min(torch.finfo(logits.dtype).tiny).sqrt()
    return centred / (deviation + _EPS)


def decoupled_kl(
    student: Tensor, teacher: Tensor, target: Tensor, temperature: float, *, alpha: float, beta: float
) -> Tensor:
    """Decoupled knowledge distillation, DKD (Zhao et al. 2022, arXiv 2203.08679, eq. 7), times T².

    `alpha` weighs the KL divergence of (target, all others), `beta` that among the other classes. The target is the
    largest share of `target` (b, k), of mixed images too.
    """
    log_p = F.log_softmax(student / temperature, dim=1)
    log_q = F.log_softmax(teacher / temperature, dim=1)
    is_target = F.one_hot(target.argmax(1), target.shape[1]).bool()
    binary_p, others_p = _decouple(log_p, is_target)
    binary_q, others_q = _decouple(log_q, is_target)
    of_target = (binary_q.exp() * (binary_q - binary_p)).sum(1)
    among_others = (others_q.exp() * (others_q - others_p)).sum(1)
    return (alpha * of_target + beta * among_others).mean() * temperature**2


def _decouple(log_p: Tensor, is_target: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities of (target, not target), (b, 2), and among the other classes, (b, k - 1)."""
    of_target = log_p[is_target].unsqueeze(1)
    others = log_p[~is_target].view(len(log_p), -1)
    rest = others.logsumexp(1, keepdim=True)
    return torch.cat([of_target, rest], 1), others - rest


def make_distillation_loss(config: DistillConfig) -> DistillationLoss:
    """The loss that `kd_loss` names, as a function of student logits, teacher log-probabilities and targets (b, k)."""
    temperature = config.kd_temperature
    if config.kd_loss == "dkd":
        alpha, beta = config.dkd_alpha, config.dkd_beta
        return lambda s, t, y: decoupled_kl(s, t, y, temperature, alpha=alpha, beta=beta)
    plain = standardized_kl if config.kd_loss == "standardized" else kl_divergence
    return lambda s, t, _: plain(s, t, temperature)

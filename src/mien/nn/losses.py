"""Training losses on scaled logits and soft targets."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy of logits (b, k) against shares (b, k) that sum to 1."""
    return -(target * F.log_softmax(logits, dim=1)).sum(1).mean()


def smooth(target: Tensor, amount: float) -> Tensor:
    """Label smoothing (Szegedy et al. 2016, arXiv 1512.00567, section 7) of shares (b, k)."""
    return target if amount == 0 else target * (1 - amount) + amount / target.shape[1]


def distillation(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL(teacher || student) at `temperature`, times T² (Hinton et al. 2015, arXiv 1503.02531, section 2).

    Both are logits (b, k); the teacher's are log-probabilities of the calibrated ensemble.
    """
    log_p = F.log_softmax(student / temperature, dim=1)
    log_q = F.log_softmax(teacher / temperature, dim=1)
    return (log_q.exp() * (log_q - log_p)).sum(1).mean() * temperature**2

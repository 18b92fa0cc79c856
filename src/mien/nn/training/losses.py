"""Training losses on scaled logits (b, k) and soft targets (b, k) whose shares sum to 1."""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mien.core.config.train import TrainConfig

Loss = Callable[[Tensor, Tensor], Tensor]


def mean_of_hardest(losses: Tensor, share: float) -> Tensor:
    """Mean of the largest `share` of a batch's losses (b,), at least one: online hard-example mining
    (Shrivastava et al. 2016, arXiv 1604.03540, section 4)."""
    if share >= 1:
        return losses.mean()
    return losses.topk(max(1, round(share * len(losses)))).values.mean()


def soft_cross_entropy(logits: Tensor, target: Tensor, share: float = 1.0) -> Tensor:
    """Mean cross-entropy, in nats, of the hardest `share`."""
    return mean_of_hardest(-(target * F.log_softmax(logits, dim=1)).sum(1), share)


def focal(logits: Tensor, target: Tensor, gamma: float, share: float = 1.0) -> Tensor:
    """Focal loss (Lin et al. 2017, arXiv 1708.02002, eq. 4, without class weights).

    Each class's term -t log p is weighted by (1 - p)^gamma; for a one-hot target that is the
    published loss, for gamma 0 the cross-entropy.
    """
    log_p = F.log_softmax(logits, dim=1)
    # 1 - p through expm1 keeps its gradient finite where p rounds to 1; 0^gamma has none below gamma 1.
    rest = (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).tiny)
    return mean_of_hardest(-(target * rest.pow(gamma) * log_p).sum(1), share)


def prior_adjusted(logits: Tensor, target: Tensor, prior: Tensor, tau: float, share: float = 1.0) -> Tensor:
    """Cross-entropy of logits + tau·log prior: logit adjustment (Menon et al. 2021, arXiv 2007.07314, eq. 10).

    With tau = 1 it is balanced softmax (Ren et al. 2020, arXiv 2007.10740, eq. 4). `prior` (k,) are
    the shares that training shows; what the bare logits then assume is `assumed_prior`.
    """
    return soft_cross_entropy(logits + tau * prior.to(logits).log(), target, share)


def smooth(target: Tensor, amount: float) -> Tensor:
    """Label smoothing (Szegedy et al. 2016, arXiv 1512.00567, section 7)."""
    return target if amount == 0 else target * (1 - amount) + amount / target.shape[1]


class CenterLoss(nn.Module):
    """½·Σ_k t_k·‖x - c_k‖², a mean over the batch (Wen et al. 2016, ECCV, eq. 2).

    The centres are learned with everything else instead of by the paper's update (its eq. 4): they
    then keep step over several devices and are saved and resumed as any weight is.
    """

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.centers = nn.Parameter(torch.zeros(classes, features))

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        """The loss of embeddings (b, d)."""
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(torch.promote_types(x.dtype, torch.float32))
            squared = (x.unsqueeze(1) - self.centers.to(x.dtype).unsqueeze(0)).square().sum(2)
            return 0.5 * (target.to(x.dtype) * squared).sum(1).mean()


def make_loss(config: TrainConfig, prior: Tensor) -> Loss:
    """The loss that a run's settings name; `prior` (k,) are the shares that training shows."""
    share = config.hard_share
    match config.loss:
        case "cross_entropy":
            return lambda z, t: soft_cross_entropy(z, t, share)
        case "focal":
            return lambda z, t: focal(z, t, config.focal_gamma, share)
        case "balanced_softmax":
            return lambda z, t: prior_adjusted(z, t, prior, 1.0, share)
        case "logit_adjusted":
            return lambda z, t: prior_adjusted(z, t, prior, config.logit_adjust_tau, share)
        case other:
            assert_never(other)

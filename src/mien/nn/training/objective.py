"""What a training minimises: network, losses and their auxiliaries as one module, so that devices can share it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from mien.core.config.train import DistillConfig, TrainConfig
from mien.core.errors import UsageError
from mien.core.labels import N_CLASSES
from mien.nn.distillation.losses import DistillationLoss, make_distillation_loss
from mien.nn.models.heads import JointHead, LinearHead
from mien.nn.models.network import Network
from mien.nn.training.losses import CenterLoss, make_loss, soft_cross_entropy
from mien.nn.training.optimizers import block_of


class TrainingObjective(nn.Module):
    """A network with the loss that its settings name.

    `prior` (7,) are the class shares that training shows.
    """

    def __init__(self, network: Network, config: TrainConfig, prior: Tensor) -> None:
        super().__init__()
        self.network = network
        self.config = config
        self.loss = make_loss(config, prior)
        self.distillation: DistillationLoss | None = None
        self.distillation_weight = 0.0
        if isinstance(config, DistillConfig):
            self.distillation, self.distillation_weight = make_distillation_loss(config), config.kd_weight
        self.center: CenterLoss | None = None
        if config.center_weight > 0:
            self.center = CenterLoss(features_of(network), N_CLASSES)

    def forward(
        self, x: Tensor, target: Tensor, margin: float, scale: float | None, teacher_log_probs: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The loss and the (margined) logits (b, 7) of augmented crops under targets (b, 7).

        `teacher_log_probs` (b, 7) are a teacher's log-probabilities, of settings with `kd_weight`.
        """
        head = self.network.head
        embedding = self.network.embed(x)
        if isinstance(head, JointHead):
            logits, margined = head.both(embedding, target, margin, scale)
            loss = self.loss(logits, target) + self.config.joint_weight * soft_cross_entropy(
                margined, target, self.config.hard_share
            )
        else:
            logits = head(embedding, target, margin, scale)
            loss = self.loss(logits, target)
        if teacher_log_probs is not None and self.distillation is not None:
            weight = self.distillation_weight
            # Predictions are made from the plain logits, so these are taught.
            plain = head(embedding, scale=scale) if margin > 0 else logits
            loss = (1 - weight) * loss + weight * self.distillation(plain, teacher_log_probs, target)
        if self.center is not None:
            loss = loss + self.config.center_weight * self.center(embedding, target)
        return loss, logits.detach()


def features_of(network: Network) -> int:
    """Length of the network's embeddings."""
    head = network.head.linear if isinstance(network.head, JointHead) else network.head
    return head.fc.in_features if isinstance(head, LinearHead) else head.weight.shape[1]


@contextmanager
def frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Keep the running statistics of batch norms as they are for a while."""
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def frozen_names(backbone: nn.Module, blocks: int) -> frozenset[str]:
    """Parameters of the stem and the first `blocks` blocks; all for 0."""
    if blocks == 0:
        return frozenset(name for name, _ in backbone.named_parameters())
    numbers, depth = block_of(backbone)
    if blocks > depth:
        raise UsageError(f"--freeze-blocks {blocks} of {depth} blocks.", fix="Use 0 to freeze the whole backbone.")
    return frozenset(name for name, number in numbers.items() if number <= blocks)


def freeze(backbone: nn.Module, names: frozenset[str]) -> None:
    """Freeze these parameters and train all others; wholly frozen modules take no statistics and drop nothing.

    To be called after `train()`.
    """
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_(name not in names)
    if not names:
        return
    for name, module in backbone.named_modules():
        parameters = [f"{name}.{key}" if name else key for key, _ in module.named_parameters()]
        if parameters and names.issuperset(parameters):
            module.eval()

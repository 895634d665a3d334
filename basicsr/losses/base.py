"""Base class of the losses, and their weighted sum over the outputs of a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from basicsr.utils.registry import LOSS_REGISTRY


class RestorationLoss(nn.Module):
    """Base class of losses between a restored image and its ground truth.

    Both are N x C x H x W in [0, 1], of any C, H and W unless a loss says otherwise. Losses are
    computed in single precision even under autocast (in double precision for double inputs):
    bfloat16 would lose variances and small differences.
    """

    def __init__(self) -> None:
        # Option files read this signature: a loss without options takes no arguments.
        super().__init__()

    def forward(self, restored: Tensor, target: Tensor) -> Tensor:
        if restored.shape != target.shape:  # they would be broadcast
            raise ValueError(
                f"{type(self).__name__} compares images of equal shapes, not of different shapes: "
                f"{tuple(restored.shape)} restored, {tuple(target.shape)} target"
            )
        dtype = torch.promote_types(restored.dtype, torch.float32)
        with torch.autocast(restored.device.type, enabled=False):
            return self.compare(restored.to(dtype), target.to(dtype))

    def compare(self, restored: Tensor, target: Tensor) -> Tensor:
        """Return the loss of two floating-point tensors of equal shape and type, as a scalar."""
        raise NotImplementedError


class Term(NamedTuple):
    """Weight of one loss, and the stage that it compares, as an index into the list of stages."""

    name: str
    weight: float
    stage: int


class LossTerms(nn.Module):
    """Weighted sum of losses, each between one stage of a network and the ground truth."""

    def __init__(self, terms: Sequence[Term], losses: Sequence[nn.Module]) -> None:
        super().__init__()
        self.terms = tuple(terms)
        self.losses = nn.ModuleList(losses)

    def forward(self, stages: Sequence[Tensor], target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the total loss and its weighted terms.

        Args:
            stages: all outputs of a network, N x C x H x W in [0, 1], the final one last.
            target: the ground truth, N x C x H x W in [0, 1].

        Returns:
            The total, and its terms by name, detached.

        Raises:
            ValueError: if a stage does not exist, or its shape does not suit its loss.
        """
        terms = {
            term.name: term.weight * loss(_stage(stages, term), target)
            for term, loss in zip(self.terms, self.losses, strict=True)
        }
        total = sum(terms.values(), start=target.new_zeros(()))
        return total, {name: value.detach() for name, value in terms.items()}


def build_losses(options: Sequence[Mapping[str, Any]]) -> LossTerms:
    """Build losses from mappings of `type`, `weight` (default 1), `stage` (-1) and arguments.

    A loss is logged under its type, followed by its stage if that is not the final one, as in
    `MSELoss_stage0`, and by a number if that name is taken.
    """
    terms: list[Term] = []
    losses: list[nn.Module] = []
    for entry in options:
        arguments = dict(entry)
        weight, stage = arguments.pop("weight", 1.0), arguments.pop("stage", -1)
        name = arguments["type"] if stage == -1 else f"{arguments['type']}_stage{stage}"
        same = sum(term.name.partition("#")[0] == name for term in terms)
        terms.append(Term(f"{name}#{same + 1}" if same else name, weight, stage))
        losses.append(LOSS_REGISTRY.build(arguments))
    return LossTerms(terms, losses)


def _stage(stages: Sequence[Tensor], term: Term) -> Tensor:
    if not -len(stages) <= term.stage < len(stages):
        raise ValueError(
            f"loss {term.name}: there is no stage {term.stage}; the network has {len(stages)}: "
            f"0 to {len(stages) - 1}, or -1 for the final one"
        )
    return stages[term.stage]

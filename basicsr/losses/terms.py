"""The weighted sum of losses that a network is trained with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from basicsr.utils.errors import OptionsError
from basicsr.utils.registry import LOSS_REGISTRY


class Term(NamedTuple):
    """How one loss counts: its weight, and the stage it looks at (an index, as of a list)."""

    name: str
    weight: float
    stage: int


class LossTerms(nn.Module):
    """Weighted losses, each between one of a network's stages and the clean image."""

    def __init__(self, terms: Sequence[Term], losses: Sequence[nn.Module]) -> None:
        super().__init__()
        self.terms = tuple(terms)
        self.losses = nn.ModuleList(losses)

    def forward(self, stages: Sequence[Tensor], target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The total, and its summands by name: weighted, detached.

        `stages` are a network's outputs (N x C x H x W in [0, 1]), the final one last. Raises
        OptionsError where a term looks at a stage that is not there.
        """
        each = {
            term.name: term.weight * loss(_stage(stages, term), target)
            for term, loss in zip(self.terms, self.losses, strict=True)
        }
        total = sum(each.values(), start=target.new_zeros(()))
        return total, {name: value.detach() for name, value in each.items()}


def build_losses(options: Sequence[Mapping[str, Any]]) -> LossTerms:
    """Losses from mappings of `type`, `weight` (1), `stage` (-1, the final one) and arguments.

    A loss is logged under its type, followed by its stage where that is not the final one, as in
    `MSELoss_stage0`, and by a number where that name is taken.
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
        raise OptionsError(
            f"loss {term.name}: there is no stage {term.stage}; the network has {len(stages)}: "
            f"0 to {len(stages) - 1}, or -1 for the final one"
        )
    return stages[term.stage]

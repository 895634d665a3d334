"""Optimizers by name: those of torch.optim that need only gradients, and MuonAdamW."""

from __future__ import annotations

import inspect
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from basicsr.utils.devices import has_units
from basicsr.utils.errors import OptionsError
from basicsr.utils.ranges import Decay, Factor, Fraction, LearningRate
from basicsr.utils.registry import OPTIMIZER_REGISTRY

SMALLEST_SIDE = 8
"""Weights with fewer input or output channels are trained by AdamW."""

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
STEPS = 5
"""Newton-Schulz iterations; see `orthogonalized`."""
_TOGETHER = {torch.bfloat16: 2, torch.float32: 5}

# An abstract class, one that needs a closure, one that needs sparse gradients.
_UNUSABLE = (torch.optim.Optimizer, torch.optim.LBFGS, torch.optim.SparseAdam)


def _register_torch_optimizers() -> None:
    for cls in vars(torch.optim).values():
        if not inspect.isclass(cls) or cls in _UNUSABLE:
            continue
        if issubclass(cls, torch.optim.Optimizer):
            OPTIMIZER_REGISTRY.register(cls)


_register_torch_optimizers()

RANGES: dict[str, Any] = {
    "lr": LearningRate,
    "weight_decay": Factor,
    "betas": tuple[Decay, Decay],
    "momentum": Decay,
    "rho": Fraction,
    # of CUDA graphs and of gradients of the step itself, which training here has none of
    "capturable": Literal[False],
    "differentiable": Literal[False],
}
"""Ranges of arguments of torch.optim's constructors, which check them only when they are called."""


def require_valid(options: Mapping[str, Any]) -> None:
    """Raise OptionsError if an optimizer of these options cannot be built."""
    cls = OPTIMIZER_REGISTRY.entry(options["type"]).cls
    arguments = {key: value for key, value in options.items() if key != "type"}
    try:
        cls([nn.Parameter(torch.zeros(2, 2))], **arguments)
    except (ValueError, RuntimeError, TypeError, AssertionError) as error:
        raise OptionsError(str(error)) from None


@OPTIMIZER_REGISTRY.register
class MuonAdamW(torch.optim.AdamW):
    """Muon for the weights of dense convolutions and linear layers, AdamW for all other parameters.

    Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) replaces the momentum of a weight
    matrix by the nearest matrix with orthogonal rows or columns. The weight of a convolution is a
    matrix of output channels x (input channels * kernel). Updates are scaled to the size of Adam's
    (Liu et al. 2025, arXiv:2502.16982), so that learning rates of Adam suit both.

    Large matrices are orthogonalized in parts of their rows, which takes less time. (Khaled et al.
    2025, arXiv:2510.16981, do so on several devices, and every few steps with whole matrices.)
    Parts are scaled like the whole matrix: if it has more rows than columns, their updates are
    larger than Adam's, by the root of the number of parts at most.

    AdamW trains biases, norms, depthwise convolutions, and convolutions with fewer input or output
    channels than `SMALLEST_SIDE`, such as those from and to images.

    Args:
        params: the parameters to train.
        lr: learning rate of Muon.
        lr_ratio: learning rate of AdamW relative to `lr`.
        momentum: decay of Muon's averaged gradients.
        betas: decays of AdamW's moments.
        weight_decay: decoupled weight decay of both.
        newton_schulz_steps: iterations of the orthogonalization.
        most_rows: output channels that are orthogonalized together at most; None: all.
        fused: use AdamW's fused kernel.

    Raises:
        ValueError: the weights are sharded, so that no process has whole matrices.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: LearningRate = 1e-3,
        lr_ratio: Annotated[float, Field(gt=0, le=1e6)] = 1.0,
        momentum: Decay = 0.95,
        betas: tuple[Decay, Decay] = (0.9, 0.999),
        weight_decay: Factor = 0.0,
        newton_schulz_steps: Annotated[int, Field(gt=0, le=100)] = STEPS,
        most_rows: Annotated[int, Field(ge=SMALLEST_SIDE)] | None = 64,
        fused: bool | None = None,
    ) -> None:
        matrices: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for parameter in params:
            if isinstance(parameter, DTensor):
                raise ValueError("weights are divided among processes; set train.sharded: false")
            (matrices if _is_matrix(parameter) else others).append(parameter)
        groups: list[dict[str, Any]] = [
            {"params": matrices, "lr": lr, "muon": True},
            {"params": others, "lr": lr * lr_ratio, "muon": False},
        ]
        groups = [group for group in groups if group["params"]]
        super().__init__(groups, lr=lr, betas=betas, weight_decay=weight_decay, fused=fused)
        # Only AdamW's fused kernel skips the steps that `found_inf` marks; Muon does not.
        self._step_supports_amp_scaling = False
        self.momentum = momentum
        self.newton_schulz_steps = newton_schulz_steps
        self.most_rows = most_rows

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        groups = self.param_groups
        self.param_groups = [group for group in groups if not group["muon"]]
        try:
            loss = super().step(closure)
        finally:
            self.param_groups = groups
        for group in groups:
            if group["muon"]:
                self._muon_step(group)
        return loss

    def _muon_step(self, group: dict[str, Any]) -> None:
        parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
        if not parameters:
            return
        matrices = [_matrix(each) for each in self._directions(parameters)]
        parts = [_parts(matrix, self.most_rows) for matrix in matrices]
        found = iter(orthogonalized(list(chain(*parts)), self.newton_schulz_steps))
        for parameter, matrix, those in zip(parameters, matrices, parts, strict=True):
            update = torch.stack([next(found) for _ in those], dim=1).flatten(0, 1)[: len(matrix)]
            if group["weight_decay"]:
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
            rate = group["lr"] * 0.2 * math.sqrt(max(matrix.shape))
            parameter.sub_(_like(parameter, update.to(parameter.dtype)), alpha=rate)

    def _directions(self, parameters: Sequence[nn.Parameter]) -> Sequence[Tensor]:
        """Update the averaged gradients; return them with Nesterov's momentum."""
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["step"] = torch.zeros(())  # Adam expects it when a state is loaded
                state["momentum_buffer"] = torch.zeros_like(parameter)
        averages = [self.state[parameter]["momentum_buffer"] for parameter in parameters]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        torch._foreach_lerp_(averages, gradients, 1 - self.momentum)
        return torch._foreach_lerp(gradients, averages, self.momentum)


def _matrix(weight: Tensor) -> Tensor:
    """Return a weight as output channels x (kernel * input channels): a view if channels last."""
    return weight.movedim(1, -1).flatten(1)


def _parts(matrix: Tensor, most_rows: int | None) -> list[Tensor]:
    """Deal the rows of a matrix out to equal parts of at most `most_rows` rows.

    Rows of zeros fill up the last parts; they stay zero.
    """
    rows = len(matrix)
    count = 1 if most_rows is None else math.ceil(rows / most_rows)
    if missing := -rows % count:
        matrix = F.pad(matrix, (0, 0, 0, missing))
    return [matrix[first::count] for first in range(count)]


def _like(weight: Tensor, matrix: Tensor) -> Tensor:
    """Return the `_matrix` of a weight in the shape of the weight."""
    return matrix.view(weight.movedim(1, -1).shape).movedim(-1, 1)


def orthogonalized(matrices: Sequence[Tensor], steps: int = STEPS) -> list[Tensor]:
    """Return matrices of the same shapes with singular values of about 1 (0.7 to 1.2).

    They are bfloat16, or float32 on devices that do not multiply bfloat16.

    Newton-Schulz iteration with the coefficients of Muon's authors, which let small singular values
    grow fast instead of converging to exactly 1. They divide by the Frobenius norm first. Here the
    largest singular value becomes 1, up to a few percent, so that small ones grow further.

    Several steps together are Q X for a matrix X with at least as many columns as rows, where Q is
    a polynomial of the small matrix X X'. More of them than `_TOGETHER` would amplify its rounding
    errors too much. Polynomials of one size are computed together.
    """
    of_side: dict[int, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for number, matrix in enumerate(matrices):
        of_side[min(matrix.shape)][max(matrix.shape)].append(number)
    results = list(matrices)
    for of_length in of_side.values():
        stacks = [
            torch.stack([_transposed_if_tall(matrices[number]) for number in numbers])
            for numbers in of_length.values()
        ]
        for numbers, stack in zip(of_length.values(), _orthogonalized(stacks, steps), strict=True):
            for number, result in zip(numbers, stack, strict=True):
                results[number] = result.mT if result.shape != matrices[number].shape else result
    return results


def _orthogonalized(stacks: list[Tensor], steps: int) -> list[Tensor]:
    """Orthogonalize stacks of matrices of one number of rows, with at least as many columns.

    The contents of `stacks` are lost.
    """
    dtype = torch.bfloat16 if has_units(stacks[0].device, "bf16") else torch.float32
    counts = [len(stack) for stack in stacks]
    norms = [x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7) for x in stacks]
    xs = [x.div_(norm).to(dtype) for x, norm in zip(stacks, norms, strict=True)]
    for first in range(0, steps, _TOGETHER[dtype]):
        gram = torch.cat([x @ x.mT for x in xs])
        square = gram @ gram
        if first == 0:
            # The norm of X X' X X' is the root of the sum of the singular values' 8th powers.
            norm = square.norm(dim=(1, 2), keepdim=True, dtype=torch.float32)
            # Below the limit, tiny gradients' norms would underflow; they stay small instead.
            largest = norm.clamp(min=1e-16).pow(0.25).to(dtype)
            gram, square = gram / largest**2, square / largest**4
        factor = step = _polynomial(gram, square)
        for _ in range(1, min(_TOGETHER[dtype], steps - first)):
            gram = step @ (gram @ step)
            step = _polynomial(gram)
            factor = factor @ step
        if first == 0:
            factor = factor / largest
        xs = [q @ x for q, x in zip(factor.split(counts), xs, strict=True)]
    return xs


def _transposed_if_tall(matrix: Tensor) -> Tensor:
    return matrix.mT if matrix.shape[0] > matrix.shape[1] else matrix


def _polynomial(gram: Tensor, square: Tensor | None = None) -> Tensor:
    """Return the matrix that a step multiplies X by, for X X' and, if it is known, its square."""
    a, b, c = _COEFFICIENTS
    if square is None:
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
    else:
        factor = torch.add(b * gram, square, alpha=c)
    factor.diagonal(dim1=1, dim2=2).add_(a)
    return factor


def _is_matrix(parameter: nn.Parameter) -> bool:
    return parameter.ndim >= 2 and min(parameter.shape[:2]) >= SMALLEST_SIDE

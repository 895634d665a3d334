"""A bound on the size of networks, checked before memory is allocated for their weights."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode

from basicsr.utils.errors import OptionsError

MAX_PARAMETERS = 1_000_000_000  # the published networks have up to 200 million
MAX_TENSORS = 10_000  # the published ones have up to 2,000
_IN_PLACE = {Tensor.normal_, Tensor.uniform_, Tensor.fill_, Tensor.zero_}
_INITIAL_VALUES = nn.init.__name__


class _WithoutValues(TorchFunctionMode):
    """Skips random initial values, which tensors without data do not have."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _IN_PLACE or getattr(func, "__module__", "") == _INITIAL_VALUES:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def require_bounded(construct: Callable[[], object]) -> None:
    """Construct a network without memory for its weights, and discard it.

    Raises:
        OptionsError: It is larger than any network of this field; found without building it to
            its end.
    """
    needs_values = (NotImplementedError, RuntimeError)
    without_data = torch.device("meta"), _WithoutValues()
    with contextlib.ExitStack() as stack:
        for context in (contextlib.suppress(*needs_values), _counted_parameters(), *without_data):
            stack.enter_context(context)
        construct()


@contextlib.contextmanager
def _counted_parameters() -> Iterator[None]:
    elements = tensors = 0

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal elements, tensors
        if parameter is not None:
            elements += parameter.numel()
            tensors += 1
        if elements > MAX_PARAMETERS or tensors > MAX_TENSORS:
            raise OptionsError(
                f"the network is too large: more than {MAX_PARAMETERS:,} parameters or "
                f"{MAX_TENSORS:,} weight tensors (published ones have up to 200 million); reduce "
                "its channels, blocks or expansion factors"
            )

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()

"""Registries: map the type names of option files to classes."""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import pkgutil
import typing
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from basicsr.utils.errors import OptionsError

Registered = TypeVar("Registered", bound=type)

_constructing: ContextVar[bool] = ContextVar("constructing a network", default=False)


def suggest(name: str, known: Iterable[str]) -> str:
    """Return " (did you mean 'X'?)" with the known name closest to `name`, or "" if none is close.

    Messages put it behind the unknown name.
    """
    by_lower = {each.lower(): each for each in known}
    closest = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return f" (did you mean '{by_lower[closest[0]]}'?)" if closest else ""


class Entry(NamedTuple):
    """Registered class with the arguments that its registered name presets."""

    cls: type
    preset: Mapping[str, Any]

    def parameters(self) -> dict[str, inspect.Parameter]:
        """Return the constructor's parameters by name, with preset values as defaults."""
        signature = inspect.signature(self.cls)
        return {
            name: parameter.replace(default=self.preset.get(name, parameter.default))
            for name, parameter in signature.parameters.items()
        }


class Registry:
    """Classes by name. The signature of a class's constructor is the schema of its options.

    `noun` is how messages call an entry: "network", "loss".
    """

    def __init__(self, noun: str) -> None:
        self.noun = noun
        self._entries: dict[str, Entry] = {}

    def register(self, cls: Registered) -> Registered:
        """Register `cls` under its own name; a class decorator."""
        self._add(cls.__name__, Entry(cls, {}))
        return cls

    def variant(self, name: str, cls: type, **preset: Any) -> None:
        """Register `cls` as `name` too, with other defaults for some of its arguments."""
        unknown = set(preset) - set(inspect.signature(cls).parameters)
        if unknown:
            raise TypeError(f"{name}: {cls.__name__} takes no argument {sorted(unknown)}")
        self._add(name, Entry(cls, preset))

    def _add(self, name: str, entry: Entry) -> None:
        if name in self._entries:
            raise ValueError(f"there is a {self.noun} called {name} already")
        self._entries[name] = entry

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def names(self) -> list[str]:
        return sorted(self._entries)

    def entry(self, name: str) -> Entry:
        """Return the entry `name`, or raise OptionsError with the closest known name."""
        if name not in self._entries:
            raise OptionsError(
                f"no {self.noun} is called '{name}'{suggest(name, self._entries)}; "
                f"known: {', '.join(self.names())}"
            )
        return self._entries[name]

    def build(self, options: Mapping[str, Any]) -> Any:
        """Return an instance of `options["type"]`, made with the other keys as arguments."""
        arguments = dict(options)
        cls, preset = self.entry(arguments.pop("type"))
        return cls(**{**preset, **arguments})


def import_modules(package: str, path: Iterable[str], *suffixes: str) -> None:
    """Import the modules of a package whose names end in one of `suffixes`.

    Importing them registers their classes, so that a new module needs no mention elsewhere.
    """
    for module in pkgutil.iter_modules(path):
        if module.name.endswith(suffixes):
            importlib.import_module(f"{package}.{module.name}")


class NetworkRegistry(Registry):
    """Registry of networks.

    Constructors check their arguments against their annotations and record them for `options_of`.
    """

    base: type = object  # RestorationNetwork; set where that is defined, above this package

    def register(self, cls: Registered) -> Registered:
        if not issubclass(cls, self.base):
            raise TypeError(f"{cls.__name__}: a network must derive from {self.base.__name__}")
        _record_arguments(cls)
        return super().register(cls)


def _record_arguments(cls: type) -> None:
    """Wrap the constructor of `cls`: check its arguments, and store them all in `self`."""
    init = inspect.getattr_static(cls, "__init__")
    signature = inspect.signature(cls)

    @functools.wraps(init)
    def recording(self: object, *args: Any, **kwargs: Any) -> None:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        _check_arguments(cls, bound.arguments)
        # the first to arrive is the outermost class's, when constructors call each other
        vars(self).setdefault("_options", dict(bound.arguments))
        if _constructing.get():
            init(self, *args, **kwargs)
            return
        from basicsr.utils.network_size import require_bounded  # here, as it loads PyTorch

        outermost = _constructing.set(True)
        try:
            require_bounded(lambda: cls(*args, **kwargs))
            init(self, *args, **kwargs)
        finally:
            _constructing.reset(outermost)

    type.__setattr__(cls, "__init__", recording)


def _check_arguments(cls: type, arguments: Mapping[str, Any]) -> None:
    """Raise OptionsError for the first argument that its annotation does not allow."""
    for name, adapter in _adapters(cls).items():
        try:
            adapter.validate_python(arguments[name])
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
            path = "".join(f"[{step}]" for step in fault["loc"] if isinstance(step, int))
            raise OptionsError(f"{name}{path}: {_expected(fault)}") from None


def _expected(fault: ErrorDetails) -> str:
    limits = fault.get("ctx", {})
    match fault["type"]:
        case "greater_than_equal":
            return f"at least {limits['ge']} is needed, not {fault['input']}"
        case "less_than_equal":
            return f"at most {limits['le']} is allowed, not {fault['input']}"
        case "missing":
            return "required, but missing"
        case "too_long":
            return f"{limits['max_length']} numbers are needed, not {limits['actual_length']}"
        case _:
            expected = fault["msg"].removeprefix("Input ").replace("should be", "expected", 1)
            return f"{expected}, not {fault['input']!r}"


@functools.cache
def _adapters(cls: Any) -> dict[str, TypeAdapter[Any]]:
    """Return validators of a constructor's annotated arguments."""
    hints = typing.get_type_hints(cls.__init__, include_extras=True)
    anything = ConfigDict(arbitrary_types_allowed=True)
    return {
        name: TypeAdapter(hints[name], config=anything)
        for name in inspect.signature(cls).parameters
        if name in hints
    }


def options_of(network: object) -> dict[str, Any]:
    """Return the options that rebuild a registered network, with every constructor argument.

    `type` is the name of the class, even if the network was built under the name of a variant.
    """
    return {"type": type(network).__name__, **vars(network)["_options"]}


ARCH_REGISTRY = NetworkRegistry("network")
DATASET_REGISTRY = Registry("data set type")
LOSS_REGISTRY = Registry("loss")
MODEL_REGISTRY = Registry("model type")
OPTIMIZER_REGISTRY = Registry("optimizer")
SCHEDULER_REGISTRY = Registry("scheduler")

"""Registries: the names that option files use, and the classes that stand behind them."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

from basicsr.utils.errors import OptionsError

Registered = TypeVar("Registered", bound=type)


def suggest(name: str, known: Iterable[str]) -> str:
    """ " (did you mean 'X'?)" for the closest of the `known` names, or an empty string."""
    by_lower = {each.lower(): each for each in known}
    found = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return f" (did you mean '{by_lower[found[0]]}'?)" if found else ""


class Entry(NamedTuple):
    """A registered class, and the arguments that its registered name stands for."""

    cls: type
    preset: Mapping[str, Any]

    def parameters(self) -> dict[str, inspect.Parameter]:
        """The constructor's parameters by name, with the preset's values as their defaults."""
        signature = inspect.signature(self.cls)
        return {
            name: parameter.replace(default=self.preset.get(name, parameter.default))
            for name, parameter in signature.parameters.items()
        }


class Registry:
    """Classes by name. A class's constructor is the schema of its options."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Entry] = {}

    def register(self, cls: Registered) -> Registered:
        """Class decorator: make `cls` known under its own name."""
        self._add(cls.__name__, Entry(cls, {}))
        return cls

    def variant(self, name: str, cls: type, **preset: Any) -> None:
        """Make `cls` known as `name` too, with other defaults for some of its arguments."""
        unknown = set(preset) - set(inspect.signature(cls).parameters)
        if unknown:
            raise TypeError(f"{name}: {cls.__name__} takes no argument {sorted(unknown)}")
        self._add(name, Entry(cls, preset))

    def _add(self, name: str, entry: Entry) -> None:
        if name in self._entries:
            raise ValueError(f"there is a {self.kind} called {name} already")
        self._entries[name] = entry

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def names(self) -> list[str]:
        return sorted(self._entries)

    def entry(self, name: str) -> Entry:
        """Raises OptionsError, with the nearest known name, where there is no such entry."""
        if name not in self._entries:
            raise OptionsError(
                f"no {self.kind} is called '{name}'{suggest(name, self._entries)}; "
                f"known: {', '.join(self.names())}"
            )
        return self._entries[name]

    def build(self, options: Mapping[str, Any]) -> Any:
        """An instance of `options["type"]`; the other keys are its constructor's arguments."""
        arguments = dict(options)
        cls, preset = self.entry(arguments.pop("type"))
        return cls(**{**preset, **arguments})


class NetworkRegistry(Registry):
    """Networks, which remember the arguments they are made with: `options_of` tells them."""

    def register(self, cls: Registered) -> Registered:
        _remember_arguments(cls)
        return super().register(cls)


def _remember_arguments(cls: type) -> None:
    """Have the constructor of `cls` leave its arguments, defaults included, in the instance."""
    init = inspect.getattr_static(cls, "__init__")
    signature = inspect.signature(cls)

    @functools.wraps(init)
    def remembering(self: object, *args: Any, **kwargs: Any) -> None:
        made_with = signature.bind(*args, **kwargs)
        made_with.apply_defaults()
        vars(self).setdefault("_made_with", dict(made_with.arguments))
        init(self, *args, **kwargs)

    type.__setattr__(cls, "__init__", remembering)


def options_of(network: object) -> dict[str, Any]:
    """Options from which an equal registered network is built, every argument among them.

    Its `type` is the class's name, also where the network was built under a variant's.
    """
    return {"type": type(network).__name__, **vars(network)["_made_with"]}


ARCH_REGISTRY = NetworkRegistry("network")
DATASET_REGISTRY = Registry("data set type")
LOSS_REGISTRY = Registry("loss")
MODEL_REGISTRY = Registry("model type")
SCHEDULER_REGISTRY = Registry("scheduler")

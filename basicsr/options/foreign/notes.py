"""Notes of a translation in progress, and the changes that all its parts make."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Notes:
    """What has become of the keys of a foreign file.

    Attributes:
        author: `model_type` of the file, which identifies its author.
        mapped: a line for each key that has another name or value here.
        unsupported: a line for each value that cannot be translated.
        unneeded: keys that have no effect here.
    """

    author: str
    mapped: list[str] = field(default_factory=list)
    unsupported: list[str] = field(default_factory=list)
    unneeded: list[str] = field(default_factory=list)

    def drop(self, options: dict[str, Any], path: str, *keys: str) -> None:
        """Remove keys that have no effect here."""
        for key in keys:
            if key in options:
                del options[key]
                self.unneeded.append(f"{path}.{key}" if path else key)

    def ignore(self, options: dict[str, Any], path: str, why: str = "", **wanted: Any) -> None:
        """Remove keys that have the `wanted` value; report any other value as unsupported."""
        for key, value in wanted.items():
            if options.get(key, value) == value or options[key] is None:
                self.drop(options, path, key)
            else:
                where = f"{path}.{key}" if path else key
                self.unsupported.append(f"{where}: {options.pop(key)!r} is not supported: {why}")


def section(parent: dict[str, Any], key: str) -> dict[str, Any]:
    """Return a section, to be changed in place; an empty one if it is missing or invalid."""
    found = parent.get(key)
    if found is None:
        parent.pop(key, None)
    return found if isinstance(found, dict) else {}


def is_count(value: Any) -> bool:
    """Return whether a value is an integer of at least 0."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_number(value: Any) -> bool:
    """Return whether a value is an integer or a float."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def whole(value: Any) -> Any:
    """Return 4e3, which those files write as `!!float 4e3`, as the integer 4000."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def make_whole(options: dict[str, Any], key: str) -> None:
    """Make a value an integer in place if it is a whole float."""
    if key in options:
        options[key] = whole(options[key])

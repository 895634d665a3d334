"""What `restore` says at its end about files that were left out, or lack something."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from basicsr.inference.jobs import Findings, Records

if TYPE_CHECKING:
    from basicsr.inference.files import Outcome

_NAMES = 5
"""Files that are named; of more, their number is said."""


def notes(outcome: Outcome, findings: Findings, records: Records) -> Iterator[str]:
    """Yield one line for everything that a restored folder lacks."""
    for words, names in outcome.left_out.items():
        yield printable(f"not kept: {words} ({_listed(names)})")
    if findings.others:
        suffixes = Counter(path.suffix.lower() or "no suffix" for path in findings.others)
        counts = ", ".join(f"{count} {suffix}" for suffix, count in suffixes.most_common(_NAMES))
        more = ", ..." if len(suffixes) > _NAMES else ""
        names = [str(path) for path in findings.others]
        yield printable(
            f"not read, as they are no images or videos of a known format: {counts}{more} "
            f"({_listed(names)})"
        )
    if findings.repeated:
        names = [str(path) for path in findings.repeated]
        yield printable(f"links to folders that are restored already: {_listed(names)}")
    if records.damaged:
        lines = _listed([str(number) for number in records.damaged], "lines")
        yield printable(f"{records.file}: damaged lines are ignored ({lines})")


def printable(text: str) -> str:
    """Return a text without line breaks and control characters, which file names may hold."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def _listed(names: Sequence[str], what: str = "files") -> str:
    shown = ", ".join(names[:_NAMES])
    return shown if len(names) <= _NAMES else f"{len(names)} {what}: {shown}, ..."

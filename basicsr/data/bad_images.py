"""Images that training goes on without, counted until there are too many."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from basicsr.utils.errors import DataError


class BadImages:
    """The images skipped so far, at most `limit` of them.

    `found` maps their names to the reasons. It is a plain dict, to be stored with a training state
    and given back by `note`, or merged over ranks: `note` takes the items of other ranks as well.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.found: dict[str, str] = {}

    def note(self, skipped: Iterable[tuple[str, str]]) -> None:
        """Log and count the (name, reason)s that are new. Raises DataError above the limit."""
        for name, reason in skipped:
            if name not in self.found:
                self.found[name] = reason
                logging.getLogger("basicsr").warning(
                    "image left out, number %d of at most %d: %s",
                    *(len(self.found), self.limit, reason),
                )
        self.require_few(self.found)

    def require_few(self, found: Mapping[str, str]) -> None:
        """Raise DataError where `found` is more than the limit, with the first three reasons."""
        if len(found) > self.limit:
            raise DataError(
                f"{len(found)} training images cannot be used, and bad_image_limit is "
                f"{self.limit}; mend them, remove them or raise the limit: {_first_of(found)}"
            )


def _first_of(found: Mapping[str, str]) -> str:
    reasons = list(found.values())
    return "; ".join(reasons[:3]) + ("; ..." if len(reasons) > 3 else "")

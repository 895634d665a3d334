"""Errors that a user can fix. The commands print them as one line, without a stack trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """Error with a message of the form "WHERE: what is wrong; what to do"."""


class OptionsError(UserError):
    """One or more invalid options; the message has one line for each."""


class DataError(UserError):
    """Missing, unreadable or unpaired image, or a folder that does not have the expected layout."""


class CheckpointError(UserError):
    """Weights or a training state that cannot be read, or that do not fit the network or run."""


class NonFiniteError(UserError):
    """Weights, or an image that a network restored, with values that are NaN or infinite."""


class Stopped(Exception):
    """A signal asked the run to stop. The message is the signal's name."""


_on_page = False


def write_for_page() -> None:
    """Let the messages of this process address visitors of the web page (see `remedy`)."""
    global _on_page
    _on_page = True


def remedy(command: str, page: str) -> str:
    """Return the part of a message that says what to do.

    Args:
        command: for users of the commands and of the library.
        page: for visitors of the web page, who can set no option and install nothing.
    """
    return page if _on_page else command


@contextmanager
def options_at(key: str) -> Iterator[None]:
    """Add the key path of the section in question, or the option file, to an OptionsError."""
    try:
        yield
    except OptionsError as error:
        raise OptionsError(f"{key}: {error}") from None

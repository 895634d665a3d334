"""Download files of weights from the Hugging Face hub. The extra `hub` has its client."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from basicsr.io.checkpoints import HUB_WEIGHTS
from basicsr.utils.errors import CheckpointError, OptionsError

try:
    from huggingface_hub import (
        get_hf_file_metadata,
        hf_hub_download,
        hf_hub_url,
        try_to_load_from_cache,
    )
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError
except ModuleNotFoundError as error:
    raise OptionsError(
        f'hf: the hub needs the package {error.name}: pip install "dtpnet-derain[hub]"'
    ) from None

PREFIX = "hf:"
REQUEST_SECONDS = 10
"""Limit of the first request, which finds out whether the hub can be reached."""


def download(
    repository: str, revision: str | None = None, token: str | bool | None = None, **options: Any
) -> Path:
    """Return the weights of a repository in the cache, downloaded if necessary.

    Args:
        repository: "OWNER/NAME".
        revision: branch, tag or commit; by default the main branch.
        token: of the user, if not the one that is logged in.
        options: further arguments of `huggingface_hub.hf_hub_download`.

    Raises:
        HFValidationError: the name is not OWNER/NAME; no request was made.
    """
    if repository.count("/") != 1:  # the client takes NAME alone too, which no user can publish
        raise HFValidationError(repository)
    cached = try_to_load_from_cache(
        repository, HUB_WEIGHTS, cache_dir=options.get("cache_dir"), revision=revision
    )
    if not isinstance(cached, str) and not options.get("local_files_only"):
        # without the network, `hf_hub_download` would try six times, with a warning for each
        url = hf_hub_url(repository, HUB_WEIGHTS, revision=revision)
        get_hf_file_metadata(url, token=token, timeout=REQUEST_SECONDS)
    file = hf_hub_download(repository, HUB_WEIGHTS, revision=revision, token=token, **options)
    return Path(file)


def hub_file(name: str) -> Path:
    """Return the file of `hf:OWNER/NAME` or `hf:OWNER/NAME@REVISION`, downloaded if necessary."""
    repository, _, revision = name.removeprefix(PREFIX).partition("@")
    with hub_errors(name):
        return download(repository, revision or None)


@contextmanager
def hub_errors(name: str) -> Iterator[None]:
    """Turn errors of the hub's client into a CheckpointError that says what to do."""
    try:
        yield
    except HFValidationError:
        raise CheckpointError(
            f"{name}: no repository of the hub; its name has the form OWNER/NAME"
        ) from None
    except Exception as error:
        if _is_missing_network(error):
            raise CheckpointError(
                f"{name}: the hub cannot be reached, and the file is not in its cache; check the "
                "network, or copy the repository to a folder and name that"
            ) from None
        if isinstance(error, EntryNotFoundError):
            raise CheckpointError(
                f"{name}: the repository has no {HUB_WEIGHTS}; name one with weights of this "
                "project"
            ) from None
        if not isinstance(error, HfHubHTTPError):
            raise
        reason = " ".join(str(error.server_message or error).partition("\n")[0].split())
        raise CheckpointError(
            f"{name}: the hub refuses ({reason}); check the name, and log in with 'hf auth login' "
            "for a private repository"
        ) from None


def _is_missing_network(error: BaseException) -> bool:
    """Return whether the client had no network; its HTTP library depends on its version."""
    names = {"LocalEntryNotFoundError", "OfflineModeIsEnabled", "TransportError"}  # httpx
    names |= {"ConnectionError", "Timeout"}  # requests
    return any(cls.__name__ in names for cls in type(error).__mro__)

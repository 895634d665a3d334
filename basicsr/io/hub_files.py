"""Download files of weights from the Hugging Face hub. The extra `hub` has its client."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from basicsr.utils.errors import CheckpointError, OptionsError

try:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError
except ModuleNotFoundError as error:
    raise OptionsError(
        f'hf: the hub needs the package {error.name}: pip install "dtpnet-derain[hub]"'
    ) from None

PREFIX = "hf:"
WEIGHTS = "model.safetensors"
"""Name of the weights in a repository."""


def download(repository: str, revision: str | None = None, **options: Any) -> Path:
    """Return the weights of a repository in the cache, downloaded if necessary.

    `options` are further arguments of `huggingface_hub.hf_hub_download`.

    Raises HFValidationError, before any request, for a name that is not OWNER/NAME.
    """
    if repository.count("/") != 1:  # the client takes NAME alone too, which no user can publish
        raise HFValidationError(repository)
    return Path(hf_hub_download(repository, WEIGHTS, revision=revision, **options))


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
    except HfHubHTTPError as error:
        reason = str(error.server_message or error).strip().partition("\n")[0]
        raise CheckpointError(
            f"{name}: the hub refuses ({reason}); check the name, and log in with 'hf auth login' "
            f"for a private repository (it must hold {WEIGHTS})"
        ) from None
    except Exception as error:
        if not _is_missing_network(error):
            raise
        raise CheckpointError(
            f"{name}: the hub cannot be reached, and the file is not in its cache; check the "
            "network, or copy the repository to a folder and name the file in it"
        ) from None


def _is_missing_network(error: BaseException) -> bool:
    names = {"LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectError", "ConnectTimeout"}
    return any(cls.__name__ in names for cls in type(error).__mro__)

"""Fixtures that several test files share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real benchmark images, named by the environment variable DERAIN_SHARED."""
    folder = os.environ.get("DERAIN_SHARED")
    if not folder or not (Path(folder) / "data").is_dir():
        pytest.skip("DERAIN_SHARED does not name a folder with the benchmark images")
    return Path(folder) / "data"


@pytest.fixture(scope="session")
def device() -> torch.device:
    """A GPU where there is one, so that the same tests cover CUDA."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")

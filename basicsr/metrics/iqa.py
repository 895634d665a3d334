"""LPIPS, and metrics of the package pyiqa (https://github.com/chaofengc/IQA-PyTorch) as "iqa:NAME".

The package comes with the extra `iqa`. It reads weights from `$TORCH_HOME/hub/pyiqa` and, for
torchvision's backbones, `$TORCH_HOME/hub/checkpoints`, and downloads what is missing. By default,
TORCH_HOME is ~/.cache/torch.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import logging
import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from basicsr.metrics.base import METRIC_REGISTRY, PROTOCOL_FAMILIES, Metric, Protocol, SingleMetric
from basicsr.utils.errors import DataError, OptionsError
from basicsr.utils.registry import suggest

if TYPE_CHECKING:
    import torch  # imported where it is needed, as it is slow to load

logger = logging.getLogger("basicsr")

PREFIX = "iqa"
_OF_IMAGE_SETS = frozenset({"fid", "sfid", "inception_score", "fgresq_pair"})


class IQAMetric(Metric):
    """Metric of pyiqa, of images in RGB.

    Args:
        name: name in pyiqa: "lpips", "musiq", ...
        weights: file to read instead of pyiqa's own, for metrics that have one file of weights.
        download: whether to download weights that are missing.
    """

    def __init__(self, name: str, weights: str | Path | None = None, download: bool = True) -> None:
        import torch

        configurations = _import_pyiqa("pyiqa.default_model_configs").DEFAULT_CONFIGS
        modes = {each: facts.get("metric_mode") for each, facts in configurations.items()}
        single = modes.keys() - _OF_IMAGE_SETS
        known = sorted(each for each in single if modes[each] in ("FR", "NR"))
        if name not in known:
            raise OptionsError(
                f"pyiqa has no metric of single images named '{name}'{suggest(name, known)}; "
                f"it has {', '.join(known)}"
            )
        self.name = name
        self.better = "lower" if configurations[name].get("lower_better") else "higher"
        self.needs_reference = modes[name] == "FR"
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        options = {} if weights is None else {"pretrained_model_path": str(weights)}
        self._model = _create(name, self.device, options, download)
        self._lock = threading.Lock()  # measuring runs in threads; not every model allows that

    def __call__(self, restored: np.ndarray, target: np.ndarray | None, peak: float) -> float:
        import torch

        images = [restored] if target is None else [restored, target]
        with self._lock, torch.inference_mode():
            try:
                return float(self._model(*(self._tensor(image, peak) for image in images)))
            except (RuntimeError, ValueError, AssertionError) as error:  # for example too small
                reason = " ".join(str(error).split())[:200] or type(error).__name__
                raise DataError(
                    f"{PREFIX}:{self.name}: pyiqa cannot measure it: {reason}"
                ) from None

    def _tensor(self, image: np.ndarray, peak: float) -> torch.Tensor:
        import torch

        tensor = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
        return (tensor.to(self.device).float() / peak).expand(-1, 3, -1, -1)


@METRIC_REGISTRY.register
class LPIPS(Metric):
    """Learned perceptual image patch similarity (Zhang et al., CVPR 2018): AlexNet, version 0.1.

    It is computed by pyiqa, and only if its weights are at hand: they are not downloaded.
    """

    name = "lpips"
    better = "lower"
    decimals = 3
    bounds = (0, math.inf)
    optional = True

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __call__(self, restored: np.ndarray, target: np.ndarray | None, peak: float) -> float:
        if self._metric is None:
            raise OptionsError(f"{self.label} has no weights")
        return self._metric(restored, target, peak)

    @property
    def available(self) -> bool:
        with self._lock:  # threads measure at once, but the warning is given once
            return self._metric is not None

    @functools.cached_property
    def _metric(self) -> IQAMetric | None:
        try:
            return IQAMetric(self.name, download=False)
        except OptionsError as error:
            logger.warning("%s is left out: %s", self.label, error)
            return None


def iqa_protocol(name: str, weights: str | Path | None = None) -> Protocol:
    """Return the protocol "iqa:NAME": a metric of pyiqa on its own.

    Raises OptionsError if pyiqa is not installed, has no such metric, or lacks its weights.
    """
    metric = IQAMetric(name, weights)
    reference = "with" if metric.needs_reference else "without"
    return SingleMetric(
        metric,
        f"{PREFIX}:{name}",
        f"{name} of pyiqa, of 8-bit RGB, {reference} ground truth; {metric.better} is better",
    )


PROTOCOL_FAMILIES[PREFIX] = iqa_protocol


def _import_pyiqa(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "pyiqa":
            raise OptionsError(f"pyiqa cannot be imported: {error}") from None
        raise OptionsError(
            'iqa metrics need the package pyiqa: pip install "dtpnet-derain[iqa]"'
        ) from None


def _create(name: str, device: str, options: dict[str, str], download: bool) -> Any:
    import torch

    pyiqa = _import_pyiqa("pyiqa")
    with _recorded_downloads(download) as downloads:
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # it prints the files that it reads
                return pyiqa.create_metric(name, device=torch.device(device), **options)
        except (OSError, ImportError, RuntimeError, TypeError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            if downloads:
                url, file = downloads[-1]
                missing = f" and cannot be downloaded ({reason})" if download else ""
                raise OptionsError(
                    f"iqa:{name}: {file} is missing{missing}; get it from {url}"
                ) from None
            raise OptionsError(f"iqa:{name}: pyiqa cannot create it: {reason}") from None


@contextlib.contextmanager
def _recorded_downloads(allowed: bool) -> Iterator[list[tuple[str, str]]]:
    """Record (URL, file) of every download in progress; a finished one is removed again.

    Downloads that are not `allowed` raise OSError.

    pyiqa and torchvision both download by `torch.hub.download_url_to_file`, whose errors name no
    file.
    """
    import torch

    pending: list[tuple[str, str]] = []
    original = torch.hub.download_url_to_file

    def download(url: str, dst: str, *arguments: Any, **options: Any) -> None:
        pending.append((url, dst))
        if not allowed:
            raise OSError(f"{dst} is missing")
        original(url, dst, *arguments, **options)
        pending.pop()

    holders = [torch.hub, importlib.import_module("pyiqa.utils.download_util")]
    for holder in holders:
        holder.download_url_to_file = download  # type: ignore[attr-defined]
    try:
        yield pending
    finally:
        for holder in holders:
            holder.download_url_to_file = original  # type: ignore[attr-defined]

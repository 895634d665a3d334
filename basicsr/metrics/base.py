"""Base classes and registries of metrics and of measuring protocols."""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal

import numpy as np

from basicsr.io.images import to_levels
from basicsr.utils.errors import DataError, OptionsError
from basicsr.utils.registry import Entry, Registered, Registry, suggest

DEFAULT_PROTOCOL = "matlab_y"

_BRIGHTEST = 16.0  # white is 1, and noise that is not clipped stays far below this

Levels = Literal["8bit", "float"]
Scores = dict[str, float]
"""Values by the names of metrics and flags."""


class Metric(ABC):
    """Quality of an image, as one number.

    Attributes:
        name: key in score files, lower case.
        unit: for axis labels; empty for a plain number.
        better: whether a "higher" or a "lower" value is better.
        decimals: digits after the point in tables.
        needs_reference: whether the ground truth is needed.
        reads: pixel values that a protocol of this metric alone hands to it, see `Protocol.reads`.
        device: where it is computed, "cpu" or "cuda".
        bounds: lowest and highest possible value; result files with others are rejected.
        optional: whether protocols measure without it where it is not `available`.
    """

    name: str
    unit: str = ""
    better: Literal["higher", "lower"] = "higher"
    decimals: int = 4
    needs_reference: bool = True
    reads: Levels = "8bit"
    device: str = "cpu"
    bounds: tuple[float, float] = (-math.inf, math.inf)
    optional: bool = False

    @abstractmethod
    def __call__(self, restored: np.ndarray, target: np.ndarray | None, peak: float) -> float:
        """Return the value for one image.

        Args:
            restored: what the protocol's conversion gives: H x W or H x W x C.
            target: the converted ground truth; None for metrics that need none.
            peak: the value of white, 255 or 1.
        """

    @property
    def label(self) -> str:
        """The name as tables and plots print it."""
        return metric_label(self.name)

    @property
    def available(self) -> bool:
        """Whether it can be computed here.

        Optional metrics override it, with a warning that says what is missing.
        """
        return True

    def is_better(self, value: float, than: float | None) -> bool:
        """Return whether `value` improves on the best value so far (None: there is none)."""
        if than is None:
            return not math.isnan(value)
        return value > than if self.better == "higher" else value < than


class Protocol(ABC):
    """A named conversion of images and the metrics computed on its result.

    Attributes:
        name: key in option files and score files.
        description: conversion and metrics in one sentence, with the papers that measure so.
        metrics: in the order of table columns; the first one ranks images.
        flags: for images that are measured in another way than described: the meaning of each
            flag, by name. `compare` returns 1 for an image to which it applies, otherwise 0.
        smallest_side: smallest height and width in pixels that the metrics are defined for.
        reads: "8bit" if it measures the values of an 8-bit file (floats and 16-bit images are
            rounded to 8 bits first), "float" if it measures the unrounded output in [0, 1].
    """

    name: str
    description: str
    metrics: Sequence[Metric]
    flags: Mapping[str, str] = MappingProxyType({})
    smallest_side: int = 1
    reads: Levels = "8bit"

    @property
    def needs_reference(self) -> bool:
        return any(metric.needs_reference for metric in self.metrics)

    @property
    def available_metrics(self) -> list[Metric]:
        return [metric for metric in self.metrics if metric.available]

    @property
    def peak(self) -> float:
        """Value of white in the arrays that `convert` takes and returns."""
        return 255.0 if self.reads == "8bit" else 1.0

    def metric(self, name: str) -> Metric:
        """Return the metric of that name. Raises OptionsError if the protocol has none."""
        for metric in self.metrics:
            if metric.name == name:
                return metric
        known = [metric.name for metric in self.metrics]
        raise OptionsError(
            f"protocol '{self.name}' has no metric '{name}'{suggest(name, known)}; "
            f"it has {', '.join(known)}"
        )

    def convert(self, image: np.ndarray) -> np.ndarray:
        """Convert H x W x C (C is 1 or 3) in [0, `peak`] to what the metrics compare.

        The input is uint8 or float64; it must not be changed.
        """
        return image

    def compare(self, restored: np.ndarray, target: np.ndarray | None) -> Scores:
        """Compute the metrics and flags of converted images."""
        return {
            metric.name: metric(restored, target, self.peak) for metric in self.available_metrics
        }

    def summarize(self, scores: Sequence[Scores]) -> Scores:
        """Return the mean of each metric and the sum of each flag over images."""
        values = {name: [each[name] for each in scores] for name in scores[0]}
        return {
            name: float(np.sum(each) if name in self.flags else np.mean(each))
            for name, each in values.items()
        }

    def __call__(self, restored: np.ndarray, target: np.ndarray | None = None) -> Scores:
        """Measure a restored image, see `measure`."""
        restored = _checked(restored, "restored")
        if not self.needs_reference:
            self.require_size(restored)
            return self.compare(self.convert(self._values(restored)), None)
        if target is None:
            raise DataError(f"protocol '{self.name}' compares with the ground truth; there is none")
        target = _checked(target, "target")
        if restored.shape != target.shape:
            raise DataError(
                f"restored image is {_size(restored)}, target is {_size(target)}: "
                "only images of one size can be compared"
            )
        self.require_size(target)
        converted = (self.convert(self._values(image)) for image in (restored, target))
        return self.compare(*converted)

    def _values(self, image: np.ndarray) -> np.ndarray:
        return levels_8bit(image) if self.reads == "8bit" else unit_range(image)

    def require_size(self, image: np.ndarray) -> None:
        """Raise DataError for an image that is too small for the protocol."""
        side = self.smallest_side
        if min(image.shape[:2]) < side:
            raise DataError(
                f"protocol '{self.name}' is undefined for an image of {_size(image)}: "
                f"it needs at least {side} x {side} pixels"
            )


class SingleMetric(Protocol):
    """A metric on its own, computed on the image as it is."""

    def __init__(self, metric: Metric, name: str, description: str, smallest_side: int = 1) -> None:
        self.metrics = (metric,)
        self.reads = metric.reads
        self.name = name
        self.description = description
        self.smallest_side = smallest_side


class NamedRegistry(Registry):
    """Registry of classes by their attribute `name`, in the order of registration."""

    def register(self, cls: Registered) -> Registered:
        self._add(cls.name, Entry(cls, {}))  # type: ignore[attr-defined]
        return cls

    def names(self) -> list[str]:
        return list(self._entries)


METRIC_REGISTRY = NamedRegistry("metric")
PROTOCOL_REGISTRY = NamedRegistry("protocol")
PROTOCOL_FAMILIES: dict[str, Callable[[str], Protocol]] = {}
"""Functions that build the protocol "PREFIX:NAME" from NAME, by prefix."""


@functools.cache
def get_protocol(name: str) -> Protocol:
    """Return the protocol of that name, loading its metrics' weights if they have any.

    Raises OptionsError, with the nearest known name, for an unknown one.
    """
    prefix, colon, member = name.partition(":")
    if colon and prefix in PROTOCOL_FAMILIES:
        return PROTOCOL_FAMILIES[prefix](member)
    return PROTOCOL_REGISTRY.build({"type": name})


def protocol_names() -> list[str]:
    """Return the protocols that need no extra package, in the order of tables."""
    return PROTOCOL_REGISTRY.names()


def get_score(text: str) -> tuple[Protocol, Metric]:
    """Return the protocol and the metric of "PROTOCOL/METRIC".

    The name of a protocol alone stands for its first metric. Raises OptionsError for unknown names.
    """
    protocol_name, slash, metric_name = text.partition("/")
    protocol = get_protocol(protocol_name)
    return protocol, protocol.metric(metric_name) if slash else protocol.metrics[0]


def flag_remarks(flags: Mapping[str, str], summary: Scores, images: int) -> list[str]:
    """Return a sentence for each flag that applies to any of the `images`.

    Args:
        flags: see `Protocol.flags`.
        summary: what `Protocol.summarize` returns for the images.
        images: their number.
    """
    return [
        f"{summary[name]:.0f} of {images} images: {meaning}"
        for name, meaning in flags.items()
        if summary.get(name)
    ]


def metric_label(metric: str) -> str:
    """Return the name of a metric as tables and plots print it."""
    return metric.upper().replace("_", "-")


def measure(
    restored: np.ndarray, target: np.ndarray | None = None, protocol: str = DEFAULT_PROTOCOL
) -> Scores:
    """Return the scores of a restored image under the named protocol, by metric.

    Images are H x W x 3 RGB, or gray as H x W or H x W x 1 (then without colour conversion), of
    uint8, uint16 (white is 65535) or float (white is 1; values beyond [0, 1] are clipped). The type
    alone decides which value is white. `restored` and `target` may differ in type, not in size.

    Raises:
        OptionsError: for an unknown protocol.
        DataError: for images that differ in size, are too small for the protocol, are not images
            as described above, or hold values that are not finite or far beyond 1.
    """
    return get_protocol(protocol)(restored, target)


def levels_8bit(image: np.ndarray) -> np.ndarray:
    """Return the values that an 8-bit file holds, 0 to 255, as uint8 or float64.

    Networks' outputs, which are float32, are rounded as in image files and by scikit-image's
    img_as_ubyte: in float32, halves to even. Halves of other types are rounded up.
    """
    if image.dtype == np.uint8:
        return image
    if image.dtype == np.float32:
        return to_levels(image.clip(0, 1), np.uint8)
    return np.floor(unit_range(image) * 255 + 0.5)


def unit_range(image: np.ndarray) -> np.ndarray:
    """Return the values in [0, 1], as float64."""
    if np.issubdtype(image.dtype, np.integer):
        return image / float(np.iinfo(image.dtype).max)
    return np.clip(image.astype(np.float64), 0.0, 1.0)


def _checked(image: np.ndarray, role: str) -> np.ndarray:
    """Return the image as H x W x C; raise DataError if it is not one that `measure` takes."""
    if image.ndim == 2:
        image = image[:, :, None]
    if image.ndim != 3 or image.shape[2] not in (1, 3):
        raise DataError(
            f"{role} image has the shape {image.shape}; expected H x W, H x W x 1 or H x W x 3"
        )
    if image.dtype in (np.uint8, np.uint16):
        return image
    if not np.issubdtype(image.dtype, np.floating):
        raise DataError(
            f"{role} image holds {image.dtype}; expected uint8, uint16, or float in [0, 1]"
        )
    if not np.isfinite(image).all():
        raise DataError(f"{role} image holds values that are not finite")
    if image.size and image.max() > _BRIGHTEST:
        raise DataError(
            f"{role} image holds floats up to {image.max():g}; expected [0, 1]: divide them by the "
            "value of white"
        )
    return image


def _size(image: np.ndarray) -> str:
    height, width, channels = image.shape
    return f"{width} x {height} ({'RGB' if channels == 3 else 'gray'})"

"""Layouts of the real-denoising set SIDD; Gaussian noise is added to clean images."""

from __future__ import annotations

from collections.abc import Mapping

from basicsr.data.layouts.base import Folders, Layout, Nested

LAYOUTS: Mapping[str, Layout] = {
    "SIDD": (
        Folders("input_crops", "target_crops"),
        Nested(
            r"(?:.*/)?([^/]*)NOISY([^/]*)",
            r"(?:.*/)?([^/]*)GT([^/]*)",
            r"\1NOISY\2",
            "SCENE/0001_NOISY_SRGB_010.PNG with SCENE/0001_GT_SRGB_010.PNG",
        ),
    ),
}

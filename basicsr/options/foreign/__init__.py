"""Translation of option files of BasicSR, NAFNet, Restormer and MPRNet.

Keys of equal meaning are left as they are; so are unknown keys, which are then reported with all
other errors. Where the first three projects differ, the `model_type` identifies the author: SRModel
is BasicSR's, ImageRestorationModel NAFNet's, ImageCleanModel Restormer's (and Histoformer's).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from basicsr.options.foreign import mprnet
from basicsr.options.foreign.datasets import data_set, sampling
from basicsr.options.foreign.notes import Notes, is_count, make_whole, section
from basicsr.options.foreign.training import settings

MODEL_TYPES = ("ImageCleanModel", "ImageRestorationModel", "SRModel")

_VOLUME_SSIM = {"ImageCleanModel", "ImageRestorationModel"}  # their SSIM of RGB images is 3-D


_PSNR_SSIM = ("calculate_psnr", "calculate_ssim")


class _Metric(NamedTuple):
    """Metric of BasicSR: its key path, its name, and whether it is computed on Y."""

    path: str
    kind: str
    on_y: bool


class Translation(NamedTuple):
    """Translated options, a line for each mapped key, and a line for each unsupported value."""

    options: dict[str, Any]
    mapped: list[str]
    unsupported: list[str]


def is_foreign(raw: Mapping[str, Any]) -> bool:
    """Return whether an option file is written for BasicSR, NAFNet, Restormer or MPRNet."""
    return raw.get("model_type") in MODEL_TYPES or mprnet.is_foreign(raw)


def translated(raw: Mapping[str, Any], training: bool) -> Translation:
    """Translate a foreign option file, for train.py if `training`, else for test.py."""
    if mprnet.is_foreign(raw):
        notes = Notes("MPRNet")
        return Translation(mprnet.training(notes, raw), notes.mapped, notes.unsupported)
    return _Translator(raw).training() if training else _Translator(raw).testing()


class _Translator:
    """Translation in progress: methods change `options` in place and note what they did."""

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self.options = copy.deepcopy(dict(raw))
        self.notes = Notes(self.options.pop("model_type"))

    def training(self) -> Translation:
        """Translate a file for train.py."""
        notes = self.notes
        self.options["model_type"] = "RestorationModel"
        notes.mapped.append(f"model_type: {notes.author} -> RestorationModel")
        gpus = self.root()
        sets, train = section(self.options, "datasets"), section(self.options, "train")
        if training_set := section(sets, "train"):
            data_set(notes, training_set, "datasets.train", training=True)
            sampling(notes, training_set, train, gpus)
        settings(notes, train)
        self.validation(sets)
        self.paths(section(self.options, "path"))
        self.logger(section(self.options, "logger"))
        return self.done()

    def testing(self) -> Translation:
        """Translate a file for test.py."""
        self.root()
        sets = section(self.options, "datasets")
        for phase in sets:
            if test_set := section(sets, phase):
                data_set(self.notes, test_set, f"datasets.{phase}")
        self.evaluation(section(self.options, "val"))
        path = section(self.options, "path")
        self.paths(path)
        self.notes.ignore(path, "path", resume_state=None)
        self.notes.ignore(path, "path", "weights must fit the network", strict_load_g=True)
        self.notes.drop(self.options, "", "logger")
        return self.done()

    def done(self) -> Translation:
        """Return the result."""
        notes = self.notes
        if notes.unneeded:
            notes.mapped.append(f"not needed here: {', '.join(notes.unneeded)}")
        return Translation(self.options, notes.mapped, notes.unsupported)

    def root(self) -> int:
        """Translate the top level; return the number of GPUs that multiplies the batch size."""
        options, notes = self.options, self.notes
        notes.ignore(options, "", "networks here keep the size of their input", scale=1)
        notes.drop(options, "", "dist_params", "find_unused_parameters", "is_train", "dist")
        if options.get("manual_seed", 0) is None:
            del options["manual_seed"]
            notes.mapped.append("manual_seed: none -> 0")
        gpus = options.pop("num_gpu", 1)
        if gpus == "auto":
            gpus = max(torch.cuda.device_count(), 1)
            notes.mapped.append(f"num_gpu: auto -> {gpus}, the number in this machine")
        if not is_count(gpus):
            notes.unsupported.append(f"num_gpu: expected a number of GPUs or auto, not {gpus!r}")
            return 1
        if gpus == 0:
            options.setdefault("device", "cpu")
            notes.mapped.append("num_gpu: 0 -> device cpu")
        return max(gpus, 1)

    def validation(self, sets: dict[str, Any]) -> None:
        """Translate the validation sets and the section `val`."""
        val, keys = section(self.options, "val"), self.validation_sets(sets)
        if val and keys:
            for key in keys:
                data_set(self.notes, sets[key], f"datasets.{key}")
            self.evaluation(val)
            make_whole(val, "val_freq")
        elif keys:
            self.notes.drop(sets, "datasets", *keys)
        elif val:
            self.notes.drop(self.options, "", "val")

    def validation_sets(self, sets: dict[str, Any]) -> list[str]:
        """Rename the validation sets to val, val_2, ...; return their keys."""
        named_val = [key for key in sets if key.partition("_")[0] == "val"]
        given = [key for key in named_val if section(sets, key)]
        keys = ["val", *(f"val_{number}" for number in range(2, len(given) + 1))][: len(given)]
        sections = [sets.pop(key) for key in given]
        sets.update(zip(keys, sections, strict=True))
        for old, new in zip(given, keys, strict=True):
            if old != new:
                self.notes.mapped.append(f"datasets.{old} -> datasets.{new}")
        return keys

    def evaluation(self, val: dict[str, Any]) -> None:
        """Translate how images are restored and measured."""
        self.notes.drop(val, "val", "window_size", "max_minibatch", "rgb2bgr", "pbar")
        self.notes.ignore(val, "val", "give val.tile, in pixels, instead", grids=False)
        self.notes.ignore(val, "val", "restored images keep their names", suffix=None)
        images = val.pop("use_image", True)
        if metrics := section(val, "metrics"):
            del val["metrics"]
            measured = {name: self.metric(name, each) for name, each in metrics.items()}
            kinds = [each for each in measured.values() if each is not None]
            protocols = [self.protocol(kind, images, kinds) for kind in kinds]
            if protocols:
                val.setdefault("protocols", list(dict.fromkeys(protocols)))

    def metric(self, name: str, metric: Any) -> _Metric | None:
        """Return what a metric measures; None, with a note, if nothing here measures the same."""
        path = f"val.metrics.{name}"
        metric = dict(metric) if isinstance(metric, dict) else {"type": metric}
        kind, border = metric.pop("type", None), metric.pop("crop_border", 0)
        on_y = metric.pop("test_y_channel", False)
        metric.pop("better", None)
        if kind not in _PSNR_SSIM or border != 0 or metric.pop("input_order", "HWC") != "HWC":
            self.notes.unsupported.append(
                f"{path}: only calculate_psnr and calculate_ssim with crop_border: 0 are measured"
            )
            return None
        if metric:
            self.notes.unsupported.append(f"{path}.{min(metric)}: unknown to {kind}")
            return None
        return _Metric(path, kind, bool(on_y))

    def protocol(self, metric: _Metric, images: bool, all_metrics: list[_Metric]) -> str:
        """Return the protocol that measures the same.

        BasicSR and Restormer compute PSNR on Y without rounding it, as `matlab_y_double` does. The
        SSIM of RGB images is a mean over channels in BasicSR. It is 3-D in Restormer and NAFNet,
        which also measure unrounded images (`use_image: false`).

        Args:
            metric: the metric.
            images: `use_image`: restored images are rounded to 8 bits before they are measured.
            all_metrics: all metrics of the file.
        """
        with_ssim = any(each.kind == "calculate_ssim" and not each.on_y for each in all_metrics)
        note = ""
        if metric.on_y:
            protocol = "matlab_y_double"
            if metric.kind == "calculate_ssim":
                note = ", whose SSIM shrinks large images"
            if not images:
                note += ", on 8-bit images"
        elif self.notes.author not in _VOLUME_SSIM:
            protocol = "rgb"
        elif not images:
            protocol = "sidd"
        else:
            protocol = "gopro" if with_ssim else "rgb"
        on = "Y" if metric.on_y else "all channels" if images else "all channels, not rounded"
        self.notes.mapped.append(f"{metric.path}: {metric.kind} on {on} -> {protocol}{note}")
        return protocol

    def paths(self, path: dict[str, Any]) -> None:
        """Translate the section `path`."""
        if "pretrain_model_g" in path:
            path["pretrain_network_g"] = path.pop("pretrain_model_g")
            self.notes.mapped.append("path.pretrain_model_g -> pretrain_network_g")
        if "strict_load" in path:
            path.setdefault("strict_load_g", path.pop("strict_load"))
        if path.get("pretrain_network_g") is None or path.get("strict_load_g") in (None, True):
            self.notes.drop(path, "path", "strict_load_g")
        for key in ("param_key_g", "param_key"):
            chosen = path.pop(key, None)
            if chosen in ("params", "params_ema"):
                self.notes.mapped.append(
                    f"path.{key}: {chosen} -> averaged weights where there are any"
                )
            elif chosen is not None:
                self.notes.unsupported.append(
                    f"path.{key}: {chosen!r}: expected params or params_ema"
                )

    def logger(self, logger: dict[str, Any]) -> None:
        """Translate the section `logger`."""
        make_whole(logger, "print_freq")
        make_whole(logger, "save_checkpoint_freq")
        if wandb := section(logger, "wandb"):
            if project := wandb.get("project"):
                logger["wandb_project"] = project
                self.notes.mapped.append(f"logger.wandb.project -> wandb_project: {project}")
                del logger["wandb"]
            self.notes.drop(logger, "logger", "wandb")

"""Translation of option files of BasicSR, NAFNet and Restormer.

Keys of equal meaning are left as they are; so are unknown keys, which are then reported with all
other errors. Where the three projects differ, the `model_type` identifies the author: SRModel is
BasicSR's, ImageRestorationModel NAFNet's, ImageCleanModel Restormer's.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

MODEL_TYPES = ("ImageCleanModel", "ImageRestorationModel", "SRModel")

_CLIPS_BY_DEFAULT = {"ImageRestorationModel"}
_GRADIENT_NORM = 0.01  # the norm that use_grad_clip stands for in Restormer and NAFNet
_DATA_SETS = {
    "Dataset_PairedImage": "PairedImageDataset",
    "SingleImageDataset": "ImageFolderDataset",
}
_PSNR_SSIM = ("calculate_psnr", "calculate_ssim")


class Translation(NamedTuple):
    """Translated options, a line for each mapped key, and a line for each unsupported value."""

    options: dict[str, Any]
    mapped: list[str]
    unsupported: list[str]


def is_foreign(raw: Mapping[str, Any]) -> bool:
    """Return whether an option file is written for BasicSR, NAFNet or Restormer."""
    return raw.get("model_type") in MODEL_TYPES


def translated(raw: Mapping[str, Any], training: bool) -> Translation:
    """Translate a foreign option file, for train.py if `training`, else for test.py."""
    return _Translator(raw).training() if training else _Translator(raw).testing()


class _Translator:
    """Translation in progress: methods change `options` in place and note what they did."""

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self.options = copy.deepcopy(dict(raw))
        self.mapped: list[str] = []
        self.unsupported: list[str] = []
        self.unneeded: list[str] = []
        self.author = self.options.pop("model_type")

    def training(self) -> Translation:
        """Translate a file for train.py."""
        self.options["model_type"] = "RestorationModel"
        self.mapped.append(f"model_type: {self.author} -> RestorationModel")
        gpus = self.root()
        sets, train = self.section(self.options, "datasets"), self.section(self.options, "train")
        if training_set := self.section(sets, "train"):
            self.data_set(training_set, "datasets.train")
            self.sampling(training_set, train, gpus)
        self.settings(train)
        self.validation(sets)
        self.paths(self.section(self.options, "path"))
        self.logger(self.section(self.options, "logger"))
        return self.done()

    def testing(self) -> Translation:
        """Translate a file for test.py."""
        self.root()
        sets = self.section(self.options, "datasets")
        for phase in sets:
            if test_set := self.section(sets, phase):
                self.data_set(test_set, f"datasets.{phase}")
        self.evaluation(self.section(self.options, "val"))
        path = self.section(self.options, "path")
        self.paths(path)
        self.ignore(path, "path", resume_state=None)
        self.ignore(path, "path", "weights must fit the network", strict_load_g=True)
        self.drop(self.options, "", "logger")
        return self.done()

    def done(self) -> Translation:
        """Return the result."""
        if self.unneeded:
            self.mapped.append(f"not needed here: {', '.join(self.unneeded)}")
        return Translation(self.options, self.mapped, self.unsupported)

    def root(self) -> int:
        """Translate the top level; return the number of GPUs that multiplies the batch size."""
        options = self.options
        self.ignore(options, "", "networks here keep the size of their input", scale=1)
        self.drop(options, "", "dist_params", "find_unused_parameters")
        if options.get("manual_seed", 0) is None:
            del options["manual_seed"]
            self.mapped.append("manual_seed: none -> 0")
        gpus = options.pop("num_gpu", 1)
        if gpus == "auto":
            gpus = max(torch.cuda.device_count(), 1)
            self.mapped.append(f"num_gpu: auto -> {gpus}, the number in this machine")
        if not _is_count(gpus):
            self.unsupported.append(f"num_gpu: expected a number of GPUs or auto, not {gpus!r}")
            return 1
        if gpus == 0:
            options.setdefault("device", "cpu")
            self.mapped.append("num_gpu: 0 -> device cpu")
        return max(gpus, 1)

    def data_set(self, options: dict[str, Any], path: str) -> None:
        """Translate one data set."""
        if (kind := options.get("type")) in _DATA_SETS:
            options["type"] = _DATA_SETS[kind]
            self.mapped.append(f"{path}.type: {kind} -> {_DATA_SETS[kind]}")
        backend = options.pop("io_backend", None)
        if backend is not None and backend != {"type": "disk"}:
            self.unsupported.append(
                f"{path}.io_backend: {backend}: only {{type: disk}}; unpack the images into folders"
            )
        self.ignore(options, path, "files of a pair have equal names here", filename_tmpl="{}")
        self.ignore(options, path, "all images of the folders are used", meta_info_file=None)
        self.ignore(options, path, "images are RGB in [0, 1]", mean=None, std=None)
        if options.get("color") not in ("rgb", "gray", "as_stored"):  # the values of this project
            self.ignore(options, path, "use rgb or gray", color="n")

    def sampling(self, options: dict[str, Any], train: dict[str, Any], gpus: int) -> None:
        """Translate how patches are drawn."""
        path = "datasets.train"
        self.ignore(options, path, "samples are always shuffled", use_shuffle=True)
        self.drop(options, path, "dataset_enlarge_ratio", "prefetch_mode", "num_prefetch_queue")
        self.drop(options, path, "pin_memory", "persistent_workers")
        if "geometric_augs" in options:
            flips = options.pop("geometric_augs")
            options["use_hflip"] = options["use_rot"] = flips
            self.mapped.append(f"{path}.geometric_augs: {flips} -> use_hflip, use_rot")
        if "use_flip" in options:
            options["use_hflip"] = options.pop("use_flip")
            self.mapped.append(f"{path}.use_flip -> use_hflip")
        _make_whole(train, "total_iter")
        if "patches" not in options:
            options["patches"] = self.patches(options, train.get("total_iter"), gpus)

    def patches(self, options: dict[str, Any], total: Any, gpus: int) -> list[dict[str, int]]:
        """Return the stages of the patch schedule, for exactly `total` iterations.

        If they cannot be translated, return a valid schedule, so that only one error is reported.
        """
        path = "datasets.train"
        columns = {key: options.pop(key, None) for key in ("gt_sizes", "mini_batch_sizes", "iters")}
        size, batch = options.pop("gt_size", None), options.pop("batch_size_per_gpu", None)
        if any(column is not None for column in columns.values()):
            rows = _rows(list(columns.values()))
            keys = "gt_sizes, mini_batch_sizes, iters"
        else:
            rows, keys = [(size, batch, total)], "gt_size, batch_size_per_gpu"
        if not rows or not all(_is_count(n) and n > 0 for n in (*rows[0], size, batch, total)):
            self.unsupported.append(
                f"{path}: gt_size, batch_size_per_gpu and train.total_iter must be whole numbers, "
                "and gt_sizes, mini_batch_sizes and iters equally long lists of them, or absent"
            )
            return [{"size": 1, "batch_size": 1, "iters": total if _is_count(total) else 1}]
        ends = [min(end, total) for end in itertools.accumulate(row[2] for row in rows)]
        ends[-1] = total  # as in Restormer, the last stage lasts to the end of training
        schedule = [
            {
                "size": min(row[0], size),
                "batch_size": min(row[1], batch) * gpus,
                "iters": end - start,
            }
            for row, start, end in zip(rows, [0, *ends], ends, strict=False)
            if end > start
        ]
        listed = ", ".join("{size} x {batch_size} for {iters}".format(**row) for row in schedule)
        self.mapped.append(f"{path}.{keys}, num_gpu: {gpus} -> patches of {listed} (global batch)")
        return schedule

    def settings(self, train: dict[str, Any]) -> None:
        """Translate the section `train`."""
        if train.get("warmup_iter") == -1:
            self.drop(train, "train", "warmup_iter")
        _make_whole(train, "warmup_iter")
        if train.get("ema_decay", 0) is None:
            self.drop(train, "train", "ema_decay")
        clip = train.pop("use_grad_clip", self.author in _CLIPS_BY_DEFAULT)
        if clip and "clip_grad_norm" not in train:
            train["clip_grad_norm"] = _GRADIENT_NORM
            self.mapped.append(f"train.use_grad_clip: {clip} -> clip_grad_norm {_GRADIENT_NORM}")
        mixing = self.section(train, "mixing_augs")
        if mixing.get("mixup") or train.get("mixup"):
            self.unsupported.append("train: mixup is not supported; remove it")
        if mixing:
            self.drop(train, "train", "mixing_augs")
        self.drop(train, "train", "mixup")
        self.ignore(train, "train", "list such terms under train.losses", perceptual_opt=None)
        if pixel := self.section(train, "pixel_opt"):
            train["losses"] = [self.pixel_loss(pixel)]
            del train["pixel_opt"]
        self.schedule(self.section(train, "scheduler"), train.get("total_iter"))

    def pixel_loss(self, options: dict[str, Any]) -> dict[str, Any]:
        """Return the entry of `train.losses`."""
        path = "train.pixel_opt"
        self.ignore(options, path, "losses are means", reduction="mean")
        name, weight = options.get("type"), options.pop("loss_weight", 1.0)
        if name == "CharbonnierLoss":
            if self.author == "ImageCleanModel":
                weight = 1.0  # Restormer's implementation ignores loss_weight
            else:  # BasicSR adds eps to the square of the difference, Restormer adds eps^2
                options["eps"] = math.sqrt(options.get("eps", 1e-12))
        if name == "PSNRLoss" and isinstance(weight, int | float):
            weight *= 10  # NAFNet and Restormer have -PSNR, here it is -PSNR / 10
            options.setdefault("eps", 1e-8)
            self.ignore(options, path, "losses compare the network's channels", toY=False)
        self.mapped.append(f"{path}: {name} -> losses: {name}, weight {weight}")
        return {**options, "weight": weight}

    def schedule(self, options: dict[str, Any], total: Any) -> None:
        """Translate the learning-rate schedule."""
        path, name = "train.scheduler", options.get("type")
        for key in ("periods", "milestones"):
            if isinstance(options.get(key), list):
                options[key] = [_whole(value) for value in options[key]]
        if name == "TrueCosineAnnealingLR":
            half_wave = _whole(options.pop("T_max", None))
            options["type"], options["periods"] = "CosineAnnealingRestartLR", [half_wave]
            if _is_count(half_wave) and _is_count(total) and half_wave < total:
                self.unsupported.append(
                    f"{path}.T_max: {half_wave}: the rate would rise again after it"
                )
            self.mapped.append(f"{path}: {name} -> CosineAnnealingRestartLR with one period")
        if name in ("MultiStepLR", "MultiStepRestartLR"):
            options["type"] = "MultiStepLR"
            self.ignore(options, path, "MultiStepLR does not restart", restarts=[0])
            self.ignore(options, path, "MultiStepLR does not restart", restart_weights=[1])

    def validation(self, sets: dict[str, Any]) -> None:
        """Translate the validation sets and the section `val`."""
        val, keys = self.section(self.options, "val"), self.validation_sets(sets)
        if val and keys:
            for key in keys:
                self.data_set(sets[key], f"datasets.{key}")
            self.evaluation(val)
            _make_whole(val, "val_freq")
        elif keys:
            self.drop(sets, "datasets", *keys)
        elif val:
            self.drop(self.options, "", "val")

    def validation_sets(self, sets: dict[str, Any]) -> list[str]:
        """Rename the validation sets to val, val_2, ...; return their keys."""
        named_val = [key for key in sets if key.partition("_")[0] == "val"]
        given = [key for key in named_val if self.section(sets, key)]
        keys = ["val", *(f"val_{number}" for number in range(2, len(given) + 1))][: len(given)]
        sections = [sets.pop(key) for key in given]
        sets.update(zip(keys, sections, strict=True))
        for old, new in zip(given, keys, strict=True):
            if old != new:
                self.mapped.append(f"datasets.{old} -> datasets.{new}")
        return keys

    def evaluation(self, val: dict[str, Any]) -> None:
        """Translate how images are restored and measured."""
        self.drop(val, "val", "window_size", "max_minibatch", "rgb2bgr", "pbar")
        self.ignore(val, "val", "give val.tile, in pixels, instead", grids=False)
        self.ignore(val, "val", "restored images keep their names", suffix=None)
        if val.pop("use_image", True) is False:
            self.mapped.append("val.use_image: False -> measured on 8-bit images, as protocols are")
        if metrics := self.section(val, "metrics"):
            del val["metrics"]
            chosen = [self.protocol(f"val.metrics.{name}", m) for name, m in metrics.items()]
            if any(chosen):
                val.setdefault("protocols", list(dict.fromkeys(filter(None, chosen))))

    def protocol(self, path: str, metric: Any) -> str | None:
        """Return the protocol that measures the same, if there is one.

        BasicSR and Restormer compute PSNR on Y without rounding it, as `matlab_y_double` does.
        """
        metric = dict(metric) if isinstance(metric, dict) else {"type": metric}
        kind, border = metric.pop("type", None), metric.pop("crop_border", 0)
        on_y = metric.pop("test_y_channel", False)
        metric.pop("better", None)
        if kind not in _PSNR_SSIM or border != 0 or metric.pop("input_order", "HWC") != "HWC":
            self.unsupported.append(
                f"{path}: only calculate_psnr and calculate_ssim with crop_border: 0 are measured"
            )
            return None
        if metric:
            self.unsupported.append(f"{path}.{min(metric)}: unknown to {kind}")
            return None
        protocol = "matlab_y_double" if on_y else "rgb"
        note = ", whose SSIM shrinks large images" if on_y and kind == "calculate_ssim" else ""
        self.mapped.append(f"{path}: {kind} on {'Y' if on_y else 'RGB'} -> {protocol}{note}")
        return protocol

    def paths(self, path: dict[str, Any]) -> None:
        """Translate the section `path`."""
        if "pretrain_model_g" in path:
            path["pretrain_network_g"] = path.pop("pretrain_model_g")
            self.mapped.append("path.pretrain_model_g -> pretrain_network_g")
        if "strict_load" in path:
            path.setdefault("strict_load_g", path.pop("strict_load"))
        if path.get("pretrain_network_g") is None or path.get("strict_load_g") in (None, True):
            self.drop(path, "path", "strict_load_g")
        for key in ("param_key_g", "param_key"):
            chosen = path.pop(key, None)
            if chosen in ("params", "params_ema"):
                self.mapped.append(f"path.{key}: {chosen} -> averaged weights where there are any")
            elif chosen is not None:
                self.unsupported.append(f"path.{key}: {chosen!r}: expected params or params_ema")

    def logger(self, logger: dict[str, Any]) -> None:
        """Translate the section `logger`."""
        _make_whole(logger, "print_freq")
        _make_whole(logger, "save_checkpoint_freq")
        if wandb := self.section(logger, "wandb"):
            if project := wandb.get("project"):
                logger["wandb_project"] = project
                self.mapped.append(f"logger.wandb.project -> wandb_project: {project}")
                del logger["wandb"]
            self.drop(logger, "logger", "wandb")

    def section(self, parent: dict[str, Any], key: str) -> dict[str, Any]:
        """Return a section, to be changed in place; an empty one if it is missing or invalid."""
        found = parent.get(key)
        if found is None:
            parent.pop(key, None)
        return found if isinstance(found, dict) else {}

    def drop(self, options: dict[str, Any], path: str, *keys: str) -> None:
        """Remove keys that have no effect here."""
        for key in keys:
            if key in options:
                del options[key]
                self.unneeded.append(f"{path}.{key}" if path else key)

    def ignore(self, options: dict[str, Any], path: str, why: str = "", **wanted: Any) -> None:
        """Remove keys that have the `wanted` value; report any other value as unsupported."""
        for key, value in wanted.items():
            if options.get(key, value) == value or options[key] is None:
                self.drop(options, path, key)
            else:
                where = f"{path}.{key}" if path else key
                self.unsupported.append(f"{where}: {options.pop(key)!r} is not supported: {why}")


def _rows(columns: list[Any]) -> list[tuple[int, ...]]:
    """Return the rows of equally long columns of positive integers; nothing if they are not."""
    if not all(isinstance(column, list) for column in columns):
        return []
    numbers = [[_whole(value) for value in column] for column in columns]
    if len({len(column) for column in numbers}) > 1:
        return []
    if not all(_is_count(value) and value > 0 for column in numbers for value in column):
        return []
    return list(zip(*numbers, strict=True))


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _whole(value: Any) -> Any:
    """Return 4e3, which those files write as `!!float 4e3`, as the integer 4000."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _make_whole(options: dict[str, Any], key: str) -> None:
    if key in options:
        options[key] = _whole(options[key])

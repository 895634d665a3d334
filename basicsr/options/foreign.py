"""Option files of BasicSR and of Restormer in the words of this project.

Only what is said differently there is translated; keys that mean the same stay, and unknown ones
stay too, to be reported with all other faults. Where BasicSR, NAFNet and Restormer differ, the
`model_type` tells whose file it is: SRModel, ImageRestorationModel, ImageCleanModel.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

MODEL_TYPES = ("ImageCleanModel", "ImageRestorationModel", "SRModel")

_CLIPS_UNASKED = {"ImageRestorationModel"}
_GRADIENT_NORM = 0.01  # what use_grad_clip means in Restormer and NAFNet
_DATA_SETS = {
    "Dataset_PairedImage": "PairedImageDataset",
    "SingleImageDataset": "ImageFolderDataset",
}
_PSNR_SSIM = ("calculate_psnr", "calculate_ssim")


class Translation(NamedTuple):
    """The translated options; a line for whatever was mapped; a line for whatever is refused."""

    options: dict[str, Any]
    mapped: list[str]
    refused: list[str]


def is_foreign(raw: Mapping[str, Any]) -> bool:
    """Whether an option file is one of BasicSR's or Restormer's for paired restoration."""
    return raw.get("model_type") in MODEL_TYPES


def translated(raw: Mapping[str, Any], training: bool) -> Translation:
    """A foreign option file as one of ours, for train.py or for test.py."""
    return _Translator(raw).training() if training else _Translator(raw).testing()


class _Translator:
    def __init__(self, raw: Mapping[str, Any]) -> None:
        self.options = copy.deepcopy(dict(raw))
        self.mapped: list[str] = []
        self.refused: list[str] = []
        self.idle: list[str] = []
        self.author = self.options.pop("model_type")

    def training(self) -> Translation:
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
        self.root()
        sets = self.section(self.options, "datasets")
        for phase in sets:
            if test_set := self.section(sets, phase):
                self.data_set(test_set, f"datasets.{phase}")
        self.evaluation(self.section(self.options, "val"))
        path = self.section(self.options, "path")
        self.paths(path)
        self.ignore(path, "path", resume_state=None)
        self.drop(self.options, "", "logger")
        return self.done()

    def done(self) -> Translation:
        if self.idle:
            self.mapped.append(f"not needed here: {', '.join(self.idle)}")
        return Translation(self.options, self.mapped, self.refused)

    def root(self) -> int:
        """What concerns the whole file; returns the number of GPUs that batches are counted by."""
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
            self.refused.append(f"num_gpu: expected a number of GPUs or auto, not {gpus!r}")
            return 1
        if gpus == 0:
            options.setdefault("device", "cpu")
            self.mapped.append("num_gpu: 0 -> device cpu")
        return max(gpus, 1)

    def data_set(self, options: dict[str, Any], path: str) -> None:
        if (kind := options.get("type")) in _DATA_SETS:
            options["type"] = _DATA_SETS[kind]
            self.mapped.append(f"{path}.type: {kind} -> {_DATA_SETS[kind]}")
        backend = options.pop("io_backend", None)
        if backend is not None and backend != {"type": "disk"}:
            self.refused.append(
                f"{path}.io_backend: {backend}: only {{type: disk}}; unpack the images into folders"
            )
        self.ignore(options, path, "files of a pair have equal names here", filename_tmpl="{}")
        self.ignore(options, path, "all images of the folders are used", meta_info_file=None)
        self.ignore(options, path, "images are RGB in [0, 1]", mean=None, std=None)
        self.ignore(options, path, "images are RGB in [0, 1]", color="n")

    def sampling(self, options: dict[str, Any], train: dict[str, Any], gpus: int) -> None:
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
        """The rows of the patch schedule, for exactly `total` iterations.

        A file that refuses to be translated gets a schedule that raises no further objection.
        """
        path = "datasets.train"
        columns = {key: options.pop(key, None) for key in ("gt_sizes", "mini_batch_sizes", "iters")}
        size, batch = options.pop("gt_size", None), options.pop("batch_size_per_gpu", None)
        if any(column is not None for column in columns.values()):
            rows = _rows(list(columns.values()))
            told = "gt_sizes, mini_batch_sizes, iters"
        else:
            rows, told = [(size, batch, total)], "gt_size, batch_size_per_gpu"
        if not rows or not all(_is_count(n) and n > 0 for n in (*rows[0], size, batch, total)):
            self.refused.append(
                f"{path}: gt_size, batch_size_per_gpu and train.total_iter must be whole numbers, "
                "and gt_sizes, mini_batch_sizes and iters equally long lists of them, or absent"
            )
            return [{"size": 1, "batch_size": 1, "iters": total if _is_count(total) else 1}]
        ends = [min(end, total) for end in itertools.accumulate(row[2] for row in rows)]
        ends[-1] = total  # as there, the last row lasts as long as the training does
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
        self.mapped.append(f"{path}.{told}, num_gpu: {gpus} -> patches of {listed} (global batch)")
        return schedule

    def settings(self, train: dict[str, Any]) -> None:
        if train.get("warmup_iter") == -1:
            self.drop(train, "train", "warmup_iter")
        _make_whole(train, "warmup_iter")
        if train.get("ema_decay", 0) is None:
            self.drop(train, "train", "ema_decay")
        clip = train.pop("use_grad_clip", self.author in _CLIPS_UNASKED)
        if clip and "clip_grad_norm" not in train:
            train["clip_grad_norm"] = _GRADIENT_NORM
            self.mapped.append(f"train.use_grad_clip: {clip} -> clip_grad_norm {_GRADIENT_NORM}")
        mixing = self.section(train, "mixing_augs")
        if mixing.get("mixup") or train.get("mixup"):
            self.refused.append("train: mixup is not done here; deraining recipes do without it")
        if mixing:
            self.drop(train, "train", "mixing_augs")
        self.drop(train, "train", "mixup")
        self.ignore(train, "train", "list such terms under train.losses", perceptual_opt=None)
        if pixel := self.section(train, "pixel_opt"):
            train["losses"] = [self.pixel_loss(pixel)]
            del train["pixel_opt"]
        self.schedule(self.section(train, "scheduler"), train.get("total_iter"))

    def pixel_loss(self, options: dict[str, Any]) -> dict[str, Any]:
        path = "train.pixel_opt"
        self.ignore(options, path, "losses are means", reduction="mean")
        name, weight = options.get("type"), options.pop("loss_weight", 1.0)
        if name == "CharbonnierLoss":
            if self.author == "ImageCleanModel":
                weight = 1.0  # Restormer's ignores its weight
            else:  # BasicSR adds eps itself to the square, Restormer and MPRNet its square
                options["eps"] = math.sqrt(options.get("eps", 1e-12))
        self.mapped.append(f"{path}: {name} -> losses: {name}, weight {weight}")
        return {**options, "weight": weight}

    def schedule(self, options: dict[str, Any], total: Any) -> None:
        path, name = "train.scheduler", options.get("type")
        for key in ("periods", "milestones"):
            if isinstance(options.get(key), list):
                options[key] = [_whole(value) for value in options[key]]
        if name == "TrueCosineAnnealingLR":
            half_wave = _whole(options.pop("T_max", None))
            options["type"], options["periods"] = "CosineAnnealingRestartLR", [half_wave]
            if _is_count(half_wave) and _is_count(total) and half_wave < total:
                self.refused.append(
                    f"{path}.T_max: {half_wave}: the rate would rise again after it"
                )
            self.mapped.append(f"{path}: {name} -> CosineAnnealingRestartLR with one period")
        if name in ("MultiStepLR", "MultiStepRestartLR"):
            options["type"] = "MultiStepLR"
            self.ignore(options, path, "MultiStepLR does not restart", restarts=[0])
            self.ignore(options, path, "MultiStepLR does not restart", restart_weights=[1])

    def validation(self, sets: dict[str, Any]) -> None:
        val, val_set = self.section(self.options, "val"), self.section(sets, "val")
        if val_set and val:
            self.data_set(val_set, "datasets.val")
            self.evaluation(val)
            _make_whole(val, "val_freq")
        elif val_set:
            self.drop(sets, "datasets", "val")
        elif val:
            self.drop(self.options, "", "val")

    def evaluation(self, val: dict[str, Any]) -> None:
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
        """The protocol that measures the same, where there is one.

        Both calculate their PSNR on Y without rounding it, which is `matlab_y_double`.
        """
        metric = dict(metric) if isinstance(metric, dict) else {"type": metric}
        kind, border = metric.pop("type", None), metric.pop("crop_border", 0)
        on_y = metric.pop("test_y_channel", False)
        metric.pop("better", None)
        if kind not in _PSNR_SSIM or border != 0 or metric.pop("input_order", "HWC") != "HWC":
            self.refused.append(
                f"{path}: only calculate_psnr and calculate_ssim with crop_border: 0 are measured"
            )
            return None
        if metric:
            self.refused.append(f"{path}.{min(metric)}: unknown to {kind}")
            return None
        protocol = "matlab_y_double" if on_y else "rgb"
        note = ", whose SSIM shrinks large images" if on_y and kind == "calculate_ssim" else ""
        self.mapped.append(f"{path}: {kind} on {'Y' if on_y else 'RGB'} -> {protocol}{note}")
        return protocol

    def paths(self, path: dict[str, Any]) -> None:
        if "pretrain_model_g" in path:
            path["pretrain_network_g"] = path.pop("pretrain_model_g")
            self.mapped.append("path.pretrain_model_g -> pretrain_network_g")
        for key in ("strict_load_g", "strict_load"):
            if path.get("pretrain_network_g") is None:
                self.drop(path, "path", key)
            self.ignore(path, "path", "weights must fit the network", **{key: True})
        for key in ("param_key_g", "param_key"):
            chosen = path.pop(key, None)
            if chosen in ("params", "params_ema"):
                self.mapped.append(f"path.{key}: {chosen} -> averaged weights where there are any")
            elif chosen is not None:
                self.refused.append(f"path.{key}: {chosen!r}: expected params or params_ema")

    def logger(self, logger: dict[str, Any]) -> None:
        _make_whole(logger, "print_freq")
        _make_whole(logger, "save_checkpoint_freq")
        if wandb := self.section(logger, "wandb"):
            if project := wandb.get("project"):
                logger["wandb_project"] = project
                self.mapped.append(f"logger.wandb.project -> wandb_project: {project}")
                del logger["wandb"]
            self.drop(logger, "logger", "wandb")

    def section(self, parent: dict[str, Any], key: str) -> dict[str, Any]:
        """A section to be changed in place; an absent, empty or wrong one reads as empty."""
        found = parent.get(key)
        if found is None:
            parent.pop(key, None)
        return found if isinstance(found, dict) else {}

    def drop(self, options: dict[str, Any], path: str, *keys: str) -> None:
        """Remove keys that make no difference here."""
        for key in keys:
            if key in options:
                del options[key]
                self.idle.append(f"{path}.{key}" if path else key)

    def ignore(self, options: dict[str, Any], path: str, why: str = "", **wanted: Any) -> None:
        """Remove keys that are right as they are; refuse them with any other value."""
        for key, right in wanted.items():
            if options.get(key, right) == right or options[key] is None:
                self.drop(options, path, key)
            else:
                where = f"{path}.{key}" if path else key
                self.refused.append(f"{where}: {options.pop(key)!r} cannot be honoured: {why}")


def _rows(columns: list[Any]) -> list[tuple[int, ...]]:
    """The rows of three equally long columns of positive whole numbers, or nothing."""
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
    """4e3, which those files write `!!float 4e3`, as 4000."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _make_whole(options: dict[str, Any], key: str) -> None:
    if key in options:
        options[key] = _whole(options[key])

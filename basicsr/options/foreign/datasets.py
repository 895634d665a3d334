"""Translation of data sets, and of how patches are drawn from them."""

from __future__ import annotations

import itertools
from typing import Any

from basicsr.options.foreign.notes import Notes, is_count, is_number, make_whole, whole

_TYPES = {
    "Dataset_PairedImage": "PairedImageDataset",
    "Dataset_DefocusDeblur_DualPixel_16bit": "PairedImageDataset",
    "Dataset_GaussianDenoising": "GaussianNoiseDataset",
    "SingleImageDataset": "ImageFolderDataset",
}
_OF_THE_LOADER = (
    "batch_size_per_gpu",
    "dataset_enlarge_ratio",
    "geometric_augs",
    "gt_size",
    "num_prefetch_queue",
    "num_worker_per_gpu",
    "persistent_workers",
    "pin_memory",
    "prefetch_mode",
    "use_flip",
    "use_rot",
    "use_shuffle",
)


def data_set(notes: Notes, options: dict[str, Any], path: str, training: bool = False) -> None:
    """Translate one data set in place.

    Args:
        notes: where changes are noted.
        options: the data set's section.
        path: its key path.
        training: patches are drawn from it.
    """
    kind = options.get("type")
    if isinstance(kind, str) and kind in _TYPES:
        options["type"] = _TYPES[kind]
        notes.mapped.append(f"{path}.type: {kind} -> {_TYPES[kind]}")
    if kind == "Dataset_GaussianDenoising":
        _gaussian_noise(notes, options, path, training)
    if kind == "Dataset_DefocusDeblur_DualPixel_16bit":
        options["dataroot_lq"] = [options.pop(f"dataroot_lq{side}", None) for side in "LR"]
        options["bit_depth"] = 16
        notes.mapped.append(f"{path}.dataroot_lqL, dataroot_lqR -> dataroot_lq, bit_depth 16")
    _storage(notes, options, path)
    _names(notes, options, path)
    notes.ignore(options, path, "images are RGB in [0, 1]", mean=None, std=None)
    notes.drop(options, path, "phase", "scale")
    if options.get("color") not in ("rgb", "gray", "as_stored"):  # the values of this project
        notes.ignore(options, path, "use rgb or gray", color="n")
    if not training:
        notes.drop(options, path, *_OF_THE_LOADER)


def _gaussian_noise(notes: Notes, options: dict[str, Any], path: str, training: bool) -> None:
    """Translate the levels of Gaussian noise: those of `sigma_range`, or `sigma_test` in tests."""
    keys = ("sigma_type", "sigma_range", "sigma_test")
    kind, levels, tested = (options.pop(key, None) for key in keys)
    if not training:
        options["sigma"], text = tested, f"sigma_test: {tested}"
    elif kind == "choice":
        options["sigma_choices"], text = levels, f"sigma_type: choice of {levels}"
    else:
        options["sigma"], text = levels, f"sigma_type: {kind}, sigma_range: {levels}"
    ranges = {"random": isinstance(levels, list), "constant": is_number(levels)}
    if training and not ranges.get(str(kind), isinstance(levels, list)):
        notes.unsupported.append(f"{path}.sigma_range: {levels!r} does not suit a {kind} sigma")
    notes.mapped.append(f"{path}.{text} -> {'sigma_choices' if kind == 'choice' else 'sigma'}")
    channels = options.pop("in_ch", 3)
    if channels == 1:
        options["color"] = "gray"
        notes.mapped.append(f"{path}.in_ch: 1 -> color gray")
    elif channels != 3:
        notes.unsupported.append(f"{path}.in_ch: {channels!r} is not supported: use 1 or 3")
    notes.drop(options, path, "dataroot_lq")


def _storage(notes: Notes, options: dict[str, Any], path: str) -> None:
    """Translate `io_backend`: an LMDB is recognised by the name of its folder here."""
    backend = options.pop("io_backend", None)
    kind = backend.get("type") if isinstance(backend, dict) else backend
    if kind not in (None, "disk", "lmdb"):
        notes.unsupported.append(f"{path}.io_backend: {kind!r} is not supported: use disk or lmdb")
    if kind != "lmdb":
        return
    folders = [str(options[key]) for key in ("dataroot_lq", "dataroot_gt") if key in options]
    others = [folder for folder in folders if not folder.rstrip("/").endswith(".lmdb")]
    if others:
        notes.unsupported.append(
            f"{path}.io_backend: lmdb: the name of {' and '.join(others)} must end in .lmdb; "
            "rename the folder, or use {type: disk} for a folder of images"
        )
    notes.mapped.append(f"{path}.io_backend: lmdb -> folders named *.lmdb")


def _names(notes: Notes, options: dict[str, Any], path: str) -> None:
    """Translate how the files of a pair are found."""
    template = options.pop("filename_tmpl", None)
    if template in (None, "{}"):
        if template is not None:
            notes.unneeded.append(f"{path}.filename_tmpl")
    elif isinstance(template, str) and template.count("{}") == 1:
        options["pairing"] = {"lq": template.replace("{}", "{name}"), "gt": "{name}"}
        notes.mapped.append(f"{path}.filename_tmpl: {template} -> pairing {options['pairing']}")
    else:
        notes.unsupported.append(f"{path}.filename_tmpl: {template!r}: expected one {{}} in it")
    if options.get("meta_info_file", "") is None:
        notes.drop(options, path, "meta_info_file")


def sampling(notes: Notes, options: dict[str, Any], train: dict[str, Any], gpus: int) -> None:
    """Translate how patches are drawn.

    Args:
        notes: where changes are noted.
        options: the section `datasets.train`.
        train: the section `train`.
        gpus: number of GPUs, which the batch sizes are multiplied with.
    """
    path = "datasets.train"
    notes.ignore(options, path, "samples are always shuffled", use_shuffle=True)
    notes.drop(options, path, "dataset_enlarge_ratio", "prefetch_mode", "num_prefetch_queue")
    notes.drop(options, path, "pin_memory", "persistent_workers")
    if "geometric_augs" in options:
        flips = options.pop("geometric_augs")
        options["use_hflip"] = options["use_rot"] = flips
        notes.mapped.append(f"{path}.geometric_augs: {flips} -> use_hflip, use_rot")
    if "use_flip" in options:
        options["use_hflip"] = options.pop("use_flip")
        notes.mapped.append(f"{path}.use_flip -> use_hflip")
    make_whole(train, "total_iter")
    if "patches" not in options:
        options["patches"] = _patches(notes, options, train.get("total_iter"), gpus)


def _patches(notes: Notes, options: dict[str, Any], total: Any, gpus: int) -> list[dict[str, int]]:
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
    if not rows or not all(is_count(n) and n > 0 for n in (*rows[0], size, batch, total)):
        notes.unsupported.append(
            f"{path}: gt_size, batch_size_per_gpu and train.total_iter must be whole numbers, "
            "and gt_sizes, mini_batch_sizes and iters equally long lists of them, or absent"
        )
        return [{"size": 1, "batch_size": 1, "iters": total if is_count(total) else 1}]
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
    notes.mapped.append(f"{path}.{keys}, num_gpu: {gpus} -> patches of {listed} (global batch)")
    return schedule


def _rows(columns: list[Any]) -> list[tuple[int, ...]]:
    """Return the rows of equally long columns of positive integers; nothing if they are not."""
    if not all(isinstance(column, list) for column in columns):
        return []
    numbers = [[whole(value) for value in column] for column in columns]
    if len({len(column) for column in numbers}) > 1:
        return []
    if not all(is_count(value) and value > 0 for column in numbers for value in column):
        return []
    return list(zip(*numbers, strict=True))

"""Translation of the section `train`: losses, mixup, clipping and learning-rate schedule."""

from __future__ import annotations

import math
from typing import Any

from basicsr.options.foreign.notes import Notes, is_count, is_number, make_whole, section, whole

_CLIPS_BY_DEFAULT = {"ImageRestorationModel"}
_GRADIENT_NORM = 0.01  # the norm that use_grad_clip stands for in Restormer and NAFNet
_ONLY_MEANS = "losses are means"


def settings(notes: Notes, train: dict[str, Any]) -> None:
    """Translate the section `train` in place."""
    if train.get("warmup_iter") == -1:
        notes.drop(train, "train", "warmup_iter")
    make_whole(train, "warmup_iter")
    if train.get("ema_decay", 0) is None:
        notes.drop(train, "train", "ema_decay")
    clip = train.pop("use_grad_clip", notes.author in _CLIPS_BY_DEFAULT)
    if clip and "clip_grad_norm" not in train:
        train["clip_grad_norm"] = _GRADIENT_NORM
        notes.mapped.append(f"train.use_grad_clip: {clip} -> clip_grad_norm {_GRADIENT_NORM}")
    _mixup(notes, train)
    _losses(notes, train)
    _schedule(notes, section(train, "scheduler"), train.get("total_iter"))


def _mixup(notes: Notes, train: dict[str, Any]) -> None:
    """Translate Restormer's `mixing_augs`; NAFNet's `mixup: true` does not say which."""
    mixing = section(train, "mixing_augs")
    if mixing.get("mixup"):
        del train["mixing_augs"]
        mixing.pop("mixup")
        beta = mixing.pop("mixup_beta", 1.2)
        probability = 0.5 if mixing.pop("use_identity", False) else 1.0
        train["mixup"] = {**mixing, "beta": beta, "probability": probability}
        notes.mapped.append(
            f"train.mixing_augs: mixup -> mixup with beta {beta}, probability {probability}"
        )
    elif mixing:
        notes.drop(train, "train", "mixing_augs")
    if train.get("mixup") is True:
        del train["mixup"]
        notes.unsupported.append("train.mixup: give its numbers: mixup: {beta: 1.2}")
    elif not train.get("mixup", True):
        notes.drop(train, "train", "mixup")


def _losses(notes: Notes, train: dict[str, Any]) -> None:
    """Translate the losses, each of which has a section of its own, to the list `losses`."""
    translations = {
        "pixel_opt": _pixel_loss,
        "fft_opt": _fft_loss,
        "seq_opt": _correlation_loss,
        "perceptual_opt": _perceptual_loss,
    }
    if not isinstance(train.get("losses", []), list):
        return  # the schema explains it
    for key, translate in translations.items():
        if not train.get(key, True):  # an empty section
            notes.drop(train, "train", key)
        elif options := section(train, key):
            del train[key]
            path = f"train.{key}"
            notes.ignore(options, path, _ONLY_MEANS, reduction="mean")
            name, loss = options.get("type"), translate(notes, options, path)
            train["losses"] = [*train.get("losses", []), loss]
            notes.mapped.append(
                f"{path}: {name} -> losses: {loss.get('type')}, weight {loss['weight']}"
            )


def _pixel_loss(notes: Notes, options: dict[str, Any], path: str) -> dict[str, Any]:
    name, weight = options.get("type"), options.pop("loss_weight", 1.0)
    if name == "CharbonnierLoss":
        if notes.author == "ImageCleanModel":
            weight = 1.0  # Restormer's implementation ignores loss_weight
        elif is_number(options.get("eps", 0)) and options.get("eps", 0) >= 0:
            # BasicSR adds eps to the square of the difference, Restormer adds eps^2
            options["eps"] = math.sqrt(options.get("eps", 1e-12))
    if name == "PSNRLoss" and is_number(weight):
        weight *= 10  # NAFNet and Restormer have -PSNR, here it is -PSNR / 10
        options.setdefault("eps", 1e-8)
        notes.ignore(options, path, "losses compare the network's channels", toY=False)
    return {**options, "weight": weight}


def _fft_loss(notes: Notes, options: dict[str, Any], path: str) -> dict[str, Any]:
    """Translate the L1 loss of the spectra's real and imaginary parts."""
    weight = options.pop("loss_weight", 1.0)
    return {**options, "weight": weight}


def _correlation_loss(notes: Notes, options: dict[str, Any], path: str) -> dict[str, Any]:
    """Translate Histoformer's loss, which its code computes with weight 1 for any `type`."""
    return {**options, "type": "PearsonLoss", "weight": 1.0}


def _perceptual_loss(notes: Notes, options: dict[str, Any], path: str) -> dict[str, Any]:
    """Translate BasicSR's perceptual loss; it has no style loss here."""
    unlike = "only L1 differences of features of ImageNet-normalised images are compared"
    notes.ignore(options, path, unlike, use_input_norm=True, range_norm=False, criterion="l1")
    notes.ignore(options, path, unlike, style_weight=0)
    layers = options.pop("layer_weights", None)
    if not isinstance(layers, dict) or not layers:
        notes.unsupported.append(f"{path}.layer_weights: expected 'layer: weight' lines")
        layers = {"conv5_4": 1.0}
    options["network"] = options.pop("vgg_type", "vgg19")
    options["layers"] = [str(layer) for layer in layers]
    options["layer_weights"] = list(layers.values())
    options["weight"] = options.pop("perceptual_weight", 1.0)
    return options


def _schedule(notes: Notes, options: dict[str, Any], total: Any) -> None:
    """Translate the learning-rate schedule."""
    path, name = "train.scheduler", options.get("type")
    for key in ("periods", "milestones"):
        if isinstance(options.get(key), list):
            options[key] = [whole(value) for value in options[key]]
    if name == "TrueCosineAnnealingLR":
        half_wave = whole(options.pop("T_max", None))
        options["type"], options["periods"] = "CosineAnnealingRestartLR", [half_wave]
        if is_count(half_wave) and is_count(total) and half_wave < total:
            notes.unsupported.append(
                f"{path}.T_max: {half_wave}: the rate would rise again after it"
            )
        notes.mapped.append(f"{path}: {name} -> CosineAnnealingRestartLR with one period")
    if name in ("MultiStepLR", "MultiStepRestartLR"):
        options["type"] = "MultiStepLR"
        notes.ignore(options, path, "MultiStepLR does not restart", restarts=[0])
        notes.ignore(options, path, "MultiStepLR does not restart", restart_weights=[1])

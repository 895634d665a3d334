"""Mutated option files: as text and as values, ours and those of BasicSR and its descendants."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
import yaml

from basicsr.archs import build_network
from basicsr.data import TrainingBatch
from basicsr.inference.restorer import RestorerSettings
from basicsr.options import TestOptions, TrainOptions, load_options
from basicsr.training.build import build_model
from basicsr.utils.errors import options_at
from basicsr.utils.registry import (
    ARCH_REGISTRY,
    DATASET_REGISTRY,
    LOSS_REGISTRY,
    OPTIMIZER_REGISTRY,
    SCHEDULER_REGISTRY,
)
from fuzzing.base import ODD_VALUES, Target, mutated_bytes, mutated_tree

FOLDER = Path(__file__).parents[2] / "options"
FEW_WEIGHTS = 500_000
SMALL = {
    "type": "DTPNet",
    "dim": 8,
    "num_blocks": [1, 1, 1, 1],
    "num_refinement_blocks": 1,
    "heads": [1, 1, 1, 1],
    "recurrent_iter": 1,
    "recurrent_channels": 8,
}
TOKENS = tuple(
    token.encode()
    for token in (
        *("\t", "\n", ": ", ":", "- ", "#", "---\n", "...", "&a ", "*a", "<<: *a", "? ", "| ", ">"),
        *("!!float ", "!!int ", "!!bool ", "!!map ", "!!seq ", "!!timestamp ", "!!python/name:a "),
        *("!!set ", "!!binary ", "!x ", "%YAML 9\n", "@", "`", '"', "'", '"D:\\data"', "[" * 50),
        *("{" * 50, "]", "}", ",", "0x", "_", "1e999", "." * 5, "~", "\r", "\u2028", "\ufeff"),
        *("9" * 4301, "&a [*a]", "type: {type: {}}\n", "on", "0777", "12:30", "\\", "\x7f"),
    )
)
FOREIGN = """
name: Deraining_Restormer
model_type: ImageCleanModel
scale: 1
num_gpu: 1
manual_seed: 100
datasets:
  train:
    name: TrainSet
    type: Dataset_PairedImage
    dataroot_gt: ./target
    dataroot_lq: ./input
    geometric_augs: true
    filename_tmpl: '{}'
    io_backend: {type: disk}
    use_shuffle: true
    num_worker_per_gpu: 8
    batch_size_per_gpu: 8
    mini_batch_sizes: [8, 5, 4]
    iters: [20, 10, 10]
    gt_size: 32
    gt_sizes: [16, 24, 32]
    dataset_enlarge_ratio: 1
    prefetch_mode: ~
  val:
    name: ValSet
    type: Dataset_PairedImage
    dataroot_gt: ./target
    dataroot_lq: ./input
    io_backend: {type: disk}
network_g: {type: Restormer, inp_channels: 3, out_channels: 3, dim: 8, num_blocks: [1, 1, 1, 1],
  num_refinement_blocks: 1, heads: [1, 1, 1, 1], ffn_expansion_factor: 2.66, bias: false,
  LayerNorm_type: WithBias, dual_pixel_task: false}
path: {pretrain_network_g: ~, strict_load_g: true, resume_state: ~}
train:
  total_iter: 40
  warmup_iter: -1
  use_grad_clip: true
  scheduler: {type: CosineAnnealingRestartCyclicLR, periods: [10, 30], restart_weights: [1, 1],
    eta_mins: [0.0003, 0.000001]}
  mixing_augs: {mixup: false, mixup_beta: 1.2, use_identity: true}
  optim_g: {type: AdamW, lr: !!float 3e-4, weight_decay: !!float 1e-4, betas: [0.9, 0.999]}
  pixel_opt: {type: L1Loss, loss_weight: 1, reduction: mean}
val:
  window_size: 8
  val_freq: !!float 4e3
  save_img: false
  rgb2bgr: true
  use_image: false
  max_minibatch: 8
  metrics: {psnr: {type: calculate_psnr, crop_border: 0, test_y_channel: true}}
logger: {print_freq: 1000, save_checkpoint_freq: !!float 4e3, use_tb_logger: true,
  wandb: {project: ~, resume_id: ~}}
dist_params: {backend: nccl, port: 29500}
"""


class Options(Target):
    """Option files; what is valid is built, and trained for a step if the network is small."""

    name = "options"

    def __init__(self) -> None:
        files = sorted(FOLDER.glob("t*/**/*.yml"))
        self.texts = [FOREIGN, *(file.read_text(encoding="utf-8") for file in files)]
        registries = (ARCH_REGISTRY, DATASET_REGISTRY, LOSS_REGISTRY)
        registries = (*registries, OPTIMIZER_REGISTRY, SCHEDULER_REGISTRY)
        types = tuple(name for registry in registries for name in registry.names())
        self.values = (*ODD_VALUES, *types)

    def make(self, rng: random.Random, folder: Path) -> Path:
        text = rng.choice(self.texts) if rng.random() < 0.8 else FOREIGN
        if rng.random() < 0.6:
            text = self._changed_values(text, rng)
        data = text.encode()
        if rng.random() < 0.45 or rng.random() < 0.01:
            data = mutated_bytes(data, rng, TOKENS)
        if rng.random() < 0.02:
            encoding = rng.choice(("utf-16", "utf-8-sig", "gb18030"))
            data = f"# \u6570\u636e\n{text}".encode(encoding)
        path = folder / "options.yml"
        path.write_bytes(data)
        return path

    def _changed_values(self, text: str, rng: random.Random) -> str:
        tree = yaml.safe_load(text)
        if rng.random() < 0.7:
            tree["network_g"] = dict(SMALL)
            for stage in _patches(tree):
                stage.update(size=16, batch_size=2)
        return yaml.safe_dump(mutated_tree(tree, rng, self.values), sort_keys=False)

    def read(self, path: Path, rng: random.Random) -> None:
        training = "\ntrain" in path.read_bytes().decode("utf-8", "replace")
        kind = TrainOptions if training else TestOptions
        force = [f"{rng.choice(FORCED)}={rng.choice(VALUES)}"] if rng.random() < 0.2 else []
        options = load_options(kind, path, force)
        with options_at(str(path)):
            if isinstance(options, TrainOptions):
                _train(options)
            elif options.network_g is not None:
                network = build_network(options.network_g.arguments())
                RestorerSettings(**options.val.restoring()).require_supported(network)


FORCED = (
    "name",
    "network_g:dim",
    "datasets:train",
    "train:losses:0:weight",
    "val",
    "a:b:c",
    "path",
)
VALUES = (
    "~",
    "0",
    "-1",
    "1e300",
    "{}",
    "[]",
    "[[",
    "&a [*a]",
    "!!int x",
    "x",
    "{type: {}}",
    '"\\d"',
)


def _patches(tree: Any) -> list[dict[str, Any]]:
    train = tree.get("datasets", {}).get("train") or {}
    return train.get("patches", []) if isinstance(train, dict) else []


def _train(options: TrainOptions) -> None:
    """Build the model; take one step on random patches if network and patches are small."""
    with torch.device("meta"):
        weights = build_network(options.network_g.arguments()).state_dict().values()
    if sum(each.numel() for each in weights) > FEW_WEIGHTS:
        return
    model = build_model(options, {}, torch.device("cpu"))
    side = options.datasets.train.patches[0].size
    if side > 64:
        return
    lq = torch.randint(0, 256, (1, model.network.in_channels, side, side), dtype=torch.uint8)
    gt = torch.randint(0, 256, (1, model.network.out_channels, side, side), dtype=torch.uint8)
    last = options.train.total_iter - 1
    for iteration in (0, last):
        model.optimize_parameters(iteration, [TrainingBatch(lq, gt, ["image"])])
    model.non_finite()


TARGET = Options()

"""Option files: YAML in, typed and strict options out. Nothing else in the project reads YAML.

A component (network, data set, loss, scheduler, optimizer) is a mapping with a `type`; its other
keys are the arguments of that type's constructor and are checked against the constructor's own
signature. Whatever is unknown, missing or of the wrong kind is an error, and all errors of a file
are reported together.
"""

from __future__ import annotations

import inspect
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, field_validator, model_validator

# These packages register what option files can name.
from basicsr import archs, data, losses, models  # noqa: F401
from basicsr.archs.rows import Keep
from basicsr.metrics import PROTOCOLS
from basicsr.options.foreign import MODEL_TYPES
from basicsr.utils.components import Component, OneOf, Strict, fields_of
from basicsr.utils.registry import (
    ARCH_REGISTRY,
    DATASET_REGISTRY,
    LOSS_REGISTRY,
    MODEL_REGISTRY,
    SCHEDULER_REGISTRY,
    Entry,
    suggest,
)

Positive = Annotated[int, Field(gt=0)]
NotNegative = Annotated[int, Field(ge=0)]


def _optimizers() -> OneOf:
    """Every optimizer of torch.optim that needs nothing but gradients, under its name there."""
    classes = {
        name: cls
        for name, cls in vars(torch.optim).items()
        if inspect.isclass(cls) and issubclass(cls, torch.optim.Optimizer)
    }
    for needs_more in ("Optimizer", "LBFGS", "SparseAdam"):  # abstract, a closure, sparse gradients
        del classes[needs_more]
    return OneOf({name: fields_of(Entry(cls, {}), ("params",)) for name, cls in classes.items()})


Network = Annotated[Component, OneOf.registered(ARCH_REGISTRY)]
Scheduler = Annotated[Component, OneOf.registered(SCHEDULER_REGISTRY)]
Optimizer = Annotated[Component, _optimizers()]


class Loss(Component):
    """A loss, its weight, and the output it looks at: an index into the network's stages."""

    weight: float = 1.0
    stage: int = -1


class PatchStage(Strict):
    """`iters` steps on `batch_size` crops (over all devices together) of `size` x `size` pixels."""

    size: Positive
    batch_size: Positive
    iters: Positive


class EvaluationSet(Component):
    """A data set that is restored and measured as whole images."""

    name: str


class TrainingSet(Component):
    """A data set that is trained on, and how patches are drawn from it.

    With `on_bad_image: skip`, up to `bad_image_limit` different images that cannot be used are
    logged and replaced by others of the set; with `raise` the first one ends the run.
    """

    name: str
    patches: Annotated[list[PatchStage], Field(min_length=1)]
    use_hflip: bool = True
    use_rot: bool = True
    num_worker_per_gpu: NotNegative = 4
    on_bad_image: Literal["raise", "skip"] = "raise"
    bad_image_limit: NotNegative = 100


DATA_SETS = OneOf.registered(DATASET_REGISTRY)


class TrainingSets(Strict):
    train: Annotated[TrainingSet, DATA_SETS]
    val: Annotated[EvaluationSet, DATA_SETS] | None = None


class Evaluation(Strict):
    """How images are restored, made 8-bit, kept and measured."""

    protocols: Annotated[tuple[str, ...], Field(min_length=1)] = ("matlab_y",)
    quantize: Literal["round", "truncate"] = "round"
    save_img: bool = True
    self_ensemble: bool = False
    memory_gib: Annotated[float, Field(gt=0)] | None = None
    features: Keep = "memory"
    tile: Positive | None = None
    tile_overlap: NotNegative = 32

    def restoring(self) -> dict[str, Any]:
        """How images are restored, as arguments of RestorerSettings."""
        return self.model_dump(
            include={"self_ensemble", "memory_gib", "features", "tile", "tile_overlap"}
        )

    @field_validator("protocols")
    @classmethod
    def _known(cls, protocols: tuple[str, ...]) -> tuple[str, ...]:
        for name in protocols:
            if name not in PROTOCOLS:
                raise ValueError(
                    f"no protocol is called '{name}'{suggest(name, PROTOCOLS)}; "
                    f"known: {', '.join(PROTOCOLS)}"
                )
        return protocols


class Validation(Evaluation):
    """The first of the `protocols` decides which checkpoint is the best one."""

    val_freq: Positive


class TrainingPaths(Strict):
    pretrain_network_g: str | None = None
    resume_state: str | None = None


class TestPaths(Strict):
    pretrain_network_g: str


class Training(Strict):
    """`sharded`: the processes divide the weights among them (FSDP2); `compile`: by torch.compile.

    A run ends after `nonfinite_limit` steps in a row whose loss or gradient is not finite, and when
    nothing has happened for `stall_timeout` seconds.
    """

    total_iter: Positive
    optim_g: Optimizer
    scheduler: Scheduler
    losses: Annotated[list[Annotated[Loss, OneOf.registered(LOSS_REGISTRY)]], Field(min_length=1)]
    warmup_iter: NotNegative = 0
    precision: Literal["fp32", "bf16"] = "fp32"
    accumulation_steps: Positive = 1
    clip_grad_norm: Annotated[float, Field(gt=0)] | None = None
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    sharded: bool = False
    compile: bool = False
    nonfinite_limit: Positive = 10
    stall_timeout: Annotated[float, Field(gt=0)] = 1800.0


class Logger(Strict):
    """The last `keep_checkpoints` stay, and every one at a multiple of `keep_every` iterations."""

    print_freq: Positive = 100
    save_checkpoint_freq: Positive = 5000
    keep_checkpoints: Positive = 3
    keep_every: Positive | None = None
    use_tb_logger: bool = True
    wandb_project: str | None = None


class Options(Strict):
    """What every option file has."""

    name: Annotated[str, Field(pattern=r"^[\w+][\w.+-]*$")]
    manual_seed: NotNegative = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    network_g: Network


class TrainOptions(Options):
    """A training run: `experiments/<name>`."""

    model_type: Annotated[str, Field(json_schema_extra={"enum": MODEL_REGISTRY.names()})]
    datasets: TrainingSets
    path: TrainingPaths = TrainingPaths()
    train: Training
    val: Validation | None = None
    logger: Logger = Logger()

    @field_validator("model_type")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in MODEL_REGISTRY:
            raise ValueError(
                f"no model type is called '{name}'{suggest(name, MODEL_REGISTRY.names())}; known: "
                f"{', '.join(MODEL_REGISTRY.names())}, and in the option files of BasicSR and "
                f"Restormer {', '.join(MODEL_TYPES)}"
            )
        return name

    @model_validator(mode="after")
    def _agrees(self) -> TrainOptions:
        if (self.val is None) != (self.datasets.val is None):
            raise ValueError("'val' and 'datasets.val' go together: give both, or none")
        planned = sum(stage.iters for stage in self.datasets.train.patches)
        if planned != self.train.total_iter:
            raise ValueError(
                f"train.total_iter is {self.train.total_iter}, but the iters of "
                f"datasets.train.patches add up to {planned}; make them equal"
            )
        return self


class TestOptions(Options):
    """A test: `results/<name>`."""

    datasets: Annotated[dict[str, Annotated[EvaluationSet, DATA_SETS]], Field(min_length=1)]
    path: TestPaths
    precision: Literal["fp32", "bf16"] = "fp32"
    val: Evaluation = Evaluation()

    @field_validator("datasets")
    @classmethod
    def _names_differ(cls, datasets: dict[str, EvaluationSet]) -> dict[str, EvaluationSet]:
        names = [dataset.name for dataset in datasets.values()]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"two data sets are called '{min(twice)}'; results go by that name")
        return datasets

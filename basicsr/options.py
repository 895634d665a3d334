"""Option files: YAML in, typed and strict options out. Nothing else in the project reads YAML.

A component (network, data set, loss, scheduler, optimizer) is a mapping with a `type`; its other
keys are the arguments of that type's constructor and are checked against the constructor's own
signature. Whatever is unknown, missing or of the wrong kind is an error, and all errors of a file
are reported together.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import torch
import yaml
from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

# These packages register what option files can name.
from basicsr import archs, data, losses, models  # noqa: F401
from basicsr.archs.rows import Keep
from basicsr.foreign_options import MODEL_TYPES, is_foreign, translated
from basicsr.metrics import PROTOCOLS
from basicsr.utils.components import Component, OneOf, Strict, fields_of, model_at
from basicsr.utils.errors import OptionsError
from basicsr.utils.files import written_whole
from basicsr.utils.registry import (
    ARCH_REGISTRY,
    DATASET_REGISTRY,
    LOSS_REGISTRY,
    MODEL_REGISTRY,
    SCHEDULER_REGISTRY,
    Entry,
    nearest,
)
from basicsr.utils.yaml_files import assign, read_yaml

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
    return OneOf(
        "optimizer", {name: fields_of(Entry(cls, {}), ("params",)) for name, cls in classes.items()}
    )


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
        """How images are restored, as arguments of Restorer."""
        return self.model_dump(
            include={"self_ensemble", "memory_gib", "features", "tile", "tile_overlap"}
        )

    @field_validator("protocols")
    @classmethod
    def _known(cls, protocols: tuple[str, ...]) -> tuple[str, ...]:
        for name in protocols:
            if name not in PROTOCOLS:
                raise ValueError(
                    f"no protocol is called '{name}'{nearest(name, PROTOCOLS)}; "
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
                f"no model type is called '{name}'{nearest(name, MODEL_REGISTRY.names())}; known: "
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


AnyOptions = TypeVar("AnyOptions", bound=Options)


def load_options(kind: type[AnyOptions], file: str | Path, force: Sequence[str] = ()) -> AnyOptions:
    """The options in `file`, with the `--force_yml` assignments "a:b:c=value" applied to them.

    A file of BasicSR or Restormer is translated (after the assignments), and what was mapped is
    printed. Raises OptionsError with one line for every fault.
    """
    raw = read_yaml(Path(file))
    for assignment in force:
        assign(raw, assignment)
    mapped: list[str] = []
    faults: list[str] = []
    if is_foreign(raw):
        raw, mapped, faults = translated(raw, training=issubclass(kind, TrainOptions))
    try:
        options = kind.model_validate_json(json.dumps(raw, default=str))
    except ValidationError as error:
        faults += [_line(kind, raw, each) for each in error.errors(include_url=False)]
    if faults:
        raise OptionsError("\n".join(f"{file}: {fault}" for fault in faults))
    if mapped:
        print(f"{file}: translated from the options of BasicSR or Restormer", *mapped, sep="\n  ")
    return options


def save_options(options: Options, file: Path) -> None:
    """Write the effective options, defaults included, as a file that can be loaded again."""
    plain = options.model_dump(mode="json")
    with written_whole(file) as content:
        content.write(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True).encode())


def _line(kind: type[Options], raw: Any, error: ErrorDetails) -> str:
    """One fault in words: the key path, what is wrong with it, and what was expected."""
    path, given = _path_in(raw, error["loc"])
    return f"{path}: {_fault(kind, error, given)}" if path else _fault(kind, error, given)


def _path_in(raw: Any, loc: Sequence[str | int]) -> tuple[str, Any]:
    """pydantic's location as a key path of the file (which has no step for a chosen type)."""
    path, here = "", raw
    for step in loc:
        if isinstance(step, int):
            path, here = f"{path}[{step}]", here[step] if step < len(here) else None
        elif isinstance(here, dict) and step != here.get("type"):
            path, here = f"{path}.{step}" if path else step, here.get(step)
    return path, here


def _fault(kind: type[Options], error: ErrorDetails, given: Any) -> str:
    context = error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden":
            key = str(error["loc"][-1])
            known = sorted(model_at(kind, error["loc"][:-1]).model_fields)
            return f"unknown key{nearest(key, known)}; known here: {', '.join(known)}"
        case "missing":
            return "required, but missing"
        case "union_tag_not_found":
            return "needs a 'type'"
        case "union_tag_invalid":
            known = re.findall(r"'([^']*)'", context["expected_tags"])
            tag = str(context["tag"])
            return f"no such type '{tag}'{nearest(tag, known)}; known: {', '.join(known)}"
        case "literal_error":
            known = re.findall(r"'([^']*)'", context["expected"])
            return f"expected {context['expected']}, not {given!r}{nearest(str(given), known)}"
        case "value_error":
            return str(context["error"])
        case "model_type" | "model_attributes_type" | "dict_type":
            return f"expected a section with 'key: value' lines, not {given!r}"
        case "list_type" | "tuple_type":
            return f"expected a list, not {given!r}"
        case "too_short":
            return f"expected at least {context['min_length']} of them, not {given!r}"
        case "too_long":
            return f"expected at most {context['max_length']} of them, not {given!r}"
        case "string_pattern_mismatch":
            return f"expected a word of letters, digits, _ + . and -, not {given!r}"
        case _:
            expected = error["msg"].removeprefix("Input ").replace("should be", "expected", 1)
            expected = re.sub("^expected (greater|less)", r"expected a number \1", expected)
            return f"{expected}, not {given!r}"

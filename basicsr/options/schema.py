"""Sections of the option files as typed, strict classes.

A component (network, data set, loss, scheduler, optimizer) is a mapping with a `type`; its other
keys are the arguments of that type's constructor, checked against the constructor's signature.
Unknown keys, missing keys and values of a wrong type are errors; all errors of a file are reported
together.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, field_validator, model_validator

# These packages register what option files can name.
from basicsr import archs, data, losses  # noqa: F401
from basicsr.archs.strip_storage import FeatureStorage
from basicsr.metrics import DEFAULT_PROTOCOL, get_protocol, get_score
from basicsr.models import optimizers, restoration_model, schedules  # noqa: F401
from basicsr.options.foreign import MODEL_TYPES
from basicsr.utils.components import Component, OneOf, Strict, fields_of
from basicsr.utils.errors import OptionsError
from basicsr.utils.files import expanded, safe_name
from basicsr.utils.ranges import Decay, Gibibytes, NotNegative, Positive, SelfEnsemble
from basicsr.utils.registry import (
    ARCH_REGISTRY,
    DATASET_REGISTRY,
    LOSS_REGISTRY,
    MODEL_REGISTRY,
    OPTIMIZER_REGISTRY,
    SCHEDULER_REGISTRY,
    suggest,
)


def _known_score(name: str) -> str:
    try:
        _, metric = get_score(name)
    except OptionsError as error:
        raise ValueError(str(error)) from None
    if not metric.available:
        raise ValueError(f"'{name}' cannot be measured here; install what it needs")
    return name


def _known_protocols(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        try:
            get_protocol(name)
        except OptionsError as error:
            raise ValueError(str(error)) from None
    return names


FolderName = Annotated[str, AfterValidator(safe_name)]


def _known_model(name: str) -> str:
    if name not in MODEL_REGISTRY:
        raise ValueError(
            f"no model type is called '{name}'{suggest(name, MODEL_REGISTRY.names())}; known: "
            f"{', '.join(MODEL_REGISTRY.names())}, and in the option files of BasicSR and "
            f"Restormer {', '.join(MODEL_TYPES)}"
        )
    return name


ModelType = Annotated[
    str, Field(json_schema_extra={"enum": MODEL_REGISTRY.names()}), AfterValidator(_known_model)
]


def _expanded(path: str) -> str:
    try:
        return str(expanded(path))
    except OptionsError as error:
        raise ValueError(str(error)) from None


FilePath = Annotated[str, AfterValidator(_expanded)]
MAX_PIXELS = 2**30
"""Pixels of a batch; Restormer's largest has one million."""

Protocols = Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_known_protocols)]


def _optimizers() -> OneOf:
    """Return the choice among the registered optimizers, without the parameters to train."""
    entries = {name: OPTIMIZER_REGISTRY.entry(name) for name in OPTIMIZER_REGISTRY.names()}
    return OneOf(
        {name: fields_of(entry, ("params",), optimizers.RANGES) for name, entry in entries.items()}
    )


def _valid_optimizer(options: Component) -> Component:
    try:
        optimizers.require_valid(options.arguments())
    except OptionsError as error:
        raise ValueError(str(error)) from None
    return options


def _valid_schedule(options: Component) -> Component:
    try:
        SCHEDULER_REGISTRY.build(options.arguments())
    except OptionsError as error:
        raise ValueError(str(error)) from None
    return options


Network = Annotated[Component, OneOf.registered(ARCH_REGISTRY)]
Scheduler = Annotated[
    Component, OneOf.registered(SCHEDULER_REGISTRY), AfterValidator(_valid_schedule)
]
Optimizer = Annotated[Component, _optimizers(), AfterValidator(_valid_optimizer)]


class Loss(Component):
    """Loss with its weight and the stage that it compares: an index into the network's outputs."""

    weight: Annotated[float, Field(ge=-1e6, le=1e6)] = 1.0
    stage: Annotated[int, Field(ge=-1000, le=1000)] = -1


class PatchStage(Strict):
    """Stage of training: `iters` steps on `batch_size` patches of `size` x `size` pixels.

    The batch size is global: over all devices and accumulation steps together.
    """

    size: Positive
    batch_size: Positive
    iters: Positive

    @model_validator(mode="after")
    def _bounded(self) -> PatchStage:
        if self.size * self.size * self.batch_size > MAX_PIXELS:
            raise ValueError(
                f"a batch of {self.batch_size} patches of {self.size} x {self.size} has more than "
                f"{MAX_PIXELS:,} pixels; reduce batch_size or size"
            )
        return self


class EvaluationSet(Component):
    """Data set whose images are restored and measured as a whole."""

    name: FolderName


class ValidationSet(EvaluationSet):
    """Validation set; `protocols` replaces `val.protocols` for it."""

    protocols: Protocols | None = None


class TrainingSet(Component):
    """Training set, and how patches are drawn from it.

    With `on_bad_image: skip`, up to `bad_image_limit` unusable images are logged and replaced by
    others; with `raise` the first one ends the run.
    """

    name: FolderName
    patches: Annotated[list[PatchStage], Field(min_length=1)]
    use_hflip: bool = True
    use_rot: bool = True
    num_worker_per_gpu: Annotated[int, Field(ge=0, le=256)] = 4
    on_bad_image: Literal["raise", "skip"] = "raise"
    bad_image_limit: NotNegative = 100


DATA_SETS = OneOf.registered(DATASET_REGISTRY)


def _restrict_extra_keys(schema: dict[str, Any]) -> None:
    """Restrict the extra keys of the JSON schema of TrainingSets to `val_2`, `val_3`, ..."""
    schema["patternProperties"] = {r"^val_\d+$": schema["additionalProperties"]}
    schema["additionalProperties"] = False


class TrainingSets(Strict):
    """Training set and validation sets: `val`, `val_2`, `val_3`, ...; the first decides "best"."""

    # Extra keys are further validation sets; pydantic checks them against __pydantic_extra__.
    model_config = ConfigDict(extra="allow", json_schema_extra=_restrict_extra_keys)
    __pydantic_extra__: dict[
        Annotated[str, Field(pattern=r"^val_\d+$")], Annotated[ValidationSet, DATA_SETS]
    ]

    train: Annotated[TrainingSet, DATA_SETS]
    val: Annotated[ValidationSet, DATA_SETS] | None = None

    @property
    def validation(self) -> dict[str, ValidationSet]:
        """The validation sets by key, `val` first."""
        first = {} if self.val is None else {"val": self.val}
        return {**first, **self.__pydantic_extra__}


class Evaluation(Strict):
    """Options of restoring, quantising, saving and measuring images."""

    protocols: Protocols = (DEFAULT_PROTOCOL,)
    quantize: Literal["round", "truncate"] = "round"
    save_img: bool = True
    self_ensemble: SelfEnsemble = False
    memory_gib: Gibibytes | None = None
    features: FeatureStorage = "memory"
    tile: Positive | None = None
    tile_overlap: NotNegative = 32

    def restoring(self) -> dict[str, Any]:
        """Return the arguments of RestorerSettings."""
        return self.model_dump(
            include={"self_ensemble", "memory_gib", "features", "tile", "tile_overlap"}
        )


class Validation(Evaluation):
    """Validation every `val_freq` iterations.

    `best: PROTOCOL/METRIC` names the score of the first validation set that decides which weights
    are the best; by default, the first metric of its first protocol.
    """

    val_freq: Positive
    best: Annotated[str, AfterValidator(_known_score)] | None = None


class TrainingPaths(Strict):
    """Weights and states to start from.

    With `strict_load_g: false`, the weights of `pretrain_network_g` that fit are loaded, and the
    others are listed.
    """

    pretrain_network_g: FilePath | None = None
    strict_load_g: bool = True
    resume_state: FilePath | None = None


class TestPaths(Strict):
    pretrain_network_g: FilePath


class MixupOptions(Strict):
    """Mixup of the patches that a process has in memory at a time: its share of a micro-batch.

    With `probability`, patches and ground truth become `w * pair + (1 - w) * another pair`, w
    drawn from Beta(beta, beta): one for all pairs, or `per_sample`. The first `start_iter`
    iterations are without mixup.
    """

    beta: Annotated[float, Field(gt=0, le=1000)] = 1.2
    probability: Annotated[float, Field(gt=0, le=1)] = 0.5
    per_sample: bool = False
    start_iter: NotNegative = 0


class Training(Strict):
    """Optimization.

    `sharded` divides the weights among the processes (FSDP2); `compile` uses torch.compile. A run
    aborts after `nonfinite_limit` steps in a row with a non-finite loss or gradient, and when
    there is no progress for `stall_timeout` seconds. `accumulation_steps: auto` is the smallest
    number with which the batches fit into memory. A run ends after `time_limit` seconds, restarts
    counted together, if that is sooner than `total_iter`; the learning rates decay accordingly.
    `time_limit_clock: cpu` counts processor time, which other programs do not use up.
    """

    total_iter: Positive
    time_limit: Annotated[float, Field(gt=0)] | None = None
    time_limit_clock: Literal["wall", "cpu"] = "wall"
    optim_g: Optimizer
    scheduler: Scheduler
    losses: Annotated[list[Annotated[Loss, OneOf.registered(LOSS_REGISTRY)]], Field(min_length=1)]
    warmup_iter: NotNegative = 0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    mixup: MixupOptions | None = None
    accumulation_steps: Positive | Literal["auto"] = 1
    clip_grad_norm: Annotated[float, Field(gt=0)] | None = None
    ema_decay: Decay = 0.0
    sharded: bool = False
    compile: bool = False
    nonfinite_limit: Positive = 10
    stall_timeout: Annotated[float, Field(gt=0, le=10**7)] = 1800.0


class Logger(Strict):
    """Logging and checkpoints.

    The last `keep_checkpoints` are kept, and those at multiples of `keep_every` iterations.
    """

    print_freq: Positive = 100
    save_checkpoint_freq: Positive = 5000
    keep_checkpoints: Positive = 3
    keep_every: Positive | None = None
    use_tb_logger: bool = True
    wandb_project: str | None = None


class Options(Strict):
    """Options that every option file has."""

    name: Annotated[str, Field(pattern=r"^[\w+][\w.+-]*$"), AfterValidator(safe_name)]
    manual_seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"


class TrainOptions(Options):
    """Options of a training run, which writes to `experiments/<name>`."""

    model_type: ModelType
    network_g: Network
    datasets: TrainingSets
    path: TrainingPaths = TrainingPaths()
    train: Training
    val: Validation | None = None
    logger: Logger = Logger()

    @model_validator(mode="after")
    def _consistent(self) -> TrainOptions:
        if (self.val is None) != (self.datasets.val is None):
            raise ValueError("'val' and 'datasets.val' go together: give both, or none")
        if self.datasets.val is None and self.datasets.validation:
            raise ValueError("datasets.val is missing; it is the first validation set")
        if self.val is not None and self.val.best is not None:
            measured = self.protocols_of("val")
            if self.val.best.partition("/")[0] not in measured:
                raise ValueError(
                    f"val.best: '{self.val.best}' is not measured on datasets.val; its protocols "
                    f"are {', '.join(measured)}"
                )
        if self.train.accumulation_steps == "auto" and self.train.sharded:
            raise ValueError(
                "train.accumulation_steps: auto measures a network that is not sharded; give a "
                "number with sharded: true"
            )
        planned = sum(stage.iters for stage in self.datasets.train.patches)
        if planned != self.train.total_iter:
            raise ValueError(
                f"train.total_iter is {self.train.total_iter}, but the iters of "
                f"datasets.train.patches add up to {planned}; make them equal"
            )
        return self

    @property
    def accumulation_steps(self) -> int:
        """Micro-batches of a step and process; 1 as long as `auto` has not been replaced."""
        steps = self.train.accumulation_steps
        return 1 if steps == "auto" else steps

    def protocols_of(self, key: str) -> tuple[str, ...]:
        """Return the protocols of the validation set `key` of `datasets`."""
        assert self.val is not None
        return self.datasets.validation[key].protocols or self.val.protocols


class TestOptions(Options):
    """Options of a test, which writes to `results/<name>`.

    Without `network_g`, the network is the one that the file of weights describes.
    `model_type` may stand there, as in BasicSR, but has no effect: tests need the network only.
    """

    network_g: Network | None = None
    datasets: Annotated[dict[str, Annotated[EvaluationSet, DATA_SETS]], Field(min_length=1)]
    path: TestPaths
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    val: Evaluation = Evaluation()
    model_type: ModelType = "RestorationModel"

    @field_validator("datasets")
    @classmethod
    def _names_differ(cls, datasets: dict[str, EvaluationSet]) -> dict[str, EvaluationSet]:
        names = [dataset.name for dataset in datasets.values()]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"two data sets are named '{min(twice)}'; give them different names")
        return datasets

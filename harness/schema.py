"""The frozen models behind every config: what a trial, a stage and a run are made of.

*Scientific* keys (dataset, model, augment, recipe, compress, surplus, teacher, seed) change the
numbers and are part of a stage's identity. They live here. *Operational* keys (run in
`run_schema.py`, cluster in `cluster_schema.py`, store) say how the work is scheduled; they are
recorded beside a result and never change its identity.

This module imports neither torch nor Hydra, because planning, status and analysis import it and
must work without them. The comment behind a key describes it in `docs/keys.md`
(`docs/make_keys.py` writes that page).
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    field_validator,
    model_validator,
)

from harness.dataset_schema import DatasetConfig
from harness.fields import (
    Beta,
    Candidates,
    ClosedShare,
    Decay,
    Epochs,
    Floats,
    Frozen,
    Names,
    NonNegativeFloat,
    NonNegativeInt,
    OpenShare,
    PositiveFloat,
    PositiveInt,
    PositiveShare,
    Rate,
    Share,
    Shares,
    canonical,
)

SCHEMA_NUMBER = 1
"""Part of every identity: raise it when the meaning of a scientific key changes."""

WIDEST = 64.0
Parsed = TypeVar("Parsed", bound=BaseModel)


def _option(value: object) -> object:
    is_finite = not isinstance(value, float) or math.isfinite(value)
    if not isinstance(value, bool | int | float | str) or not is_finite:
        raise ValueError(f"must be a number, a text, true or false, not {value!r}")
    # 2 and 2.0 must give the same id, because only the method or form knows the option's type
    is_whole = isinstance(value, float) and value.is_integer()
    return int(value) if is_whole else canonical(value)


Option = Annotated[bool | int | float | str, BeforeValidator(_option)]


class Options(Frozen):
    """The parameters of a method or of a form of surplus, by name.

    The file of the method or form declares them (`options_model`), and a launch checks them.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Option] = Field(init=False)

    @model_validator(mode="before")
    @classmethod
    def _null(cls, value: object) -> object:
        return {} if value is None else value

    def parse(self, model: type[Parsed]) -> Parsed:
        """Return the options as an instance of `model`, which adds its defaults."""
        return model.model_validate(self.model_extra)


class NoOptions(Frozen):
    """The options of a method or form that has none."""


class HasOptions(Frozen):
    """A config with `options`. JSON omits empty ones, because older stage ids were made without."""

    # parameters that the file of the method or form declares
    options: Options = Field(default=Options(), exclude_if=lambda options: not options.model_extra)


# --- scientific: part of a stage's identity ---------------------------------------------------


class ModelConfig(Frozen):
    """A family at a size: `width` multiplies its channel counts, `depth` counts its layers."""

    family: str  # a family of docs/models.md, or timm:NAME
    depth: PositiveInt | None = None  # number of layers; null: the family has only one
    width: Annotated[float, Field(gt=0.0, le=WIDEST)] = 1.0  # multiplier of the channel counts


Magnitude = Literal["none"] | float


def _magnitude(value: object) -> object:
    if value == "none":
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"must be `none` or a number from 0 to 1, not {value!r}")
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{value} is outside [0, 1]; a magnitude is a share of the scale")
    return float(value)


AnyMagnitude = Annotated[Magnitude, BeforeValidator(_magnitude)]


class AugmentConfig(Frozen):
    """The policy, its strength, and the other transformations that every sample gets.

    `magnitude` is "none" (no policy at all) or a share in [0, 1] of the space's scale.
    """

    policy: str = "randaug(n=2)"  # a space with its arguments, without a magnitude
    magnitude: AnyMagnitude = "none"  # share in [0, 1] of the space's scale; none: no policy at all
    crop_padding: NonNegativeInt = 0  # pixels added on each side before the crop
    flip: bool = False  # mirror with probability one half
    erasing: ClosedShare = 0.0  # probability of a box set to the mean
    mixup: Beta = 0.0  # mixup: a of Beta(a, a); 0: off
    cutmix: Beta = 0.0  # CutMix: a of Beta(a, a); 0: off; with mixup, half of the samples each


class OptimizerConfig(Frozen):
    """SGD with momentum or AdamW; the learning rate is not scaled by batch size or ranks."""

    name: Literal["sgd", "adamw"] = "sgd"  # the optimizer
    lr: Rate  # peak of the schedule
    momentum: Share = 0.9  # momentum of sgd
    nesterov: bool = False  # Nesterov's form of sgd's momentum
    betas: Annotated[tuple[Share, Share], Strict(False)] = (0.9, 0.999)  # betas of adamw
    weight_decay: Decay = 0.0  # per step, times the learning rate
    decay_norm_and_bias: bool = False  # also decay batch-norm weights and biases


class ScheduleConfig(Frozen):
    """Learning rate over one stage; lengths are in epochs of that stage.

    Under `trunk` it is constant after the warm-up, and falls to 0 over the last epochs. Dense
    stages of several lengths share the epochs before the fall (`harness/sweep/trunk.py`).
    """

    name: Literal["cosine", "step", "constant", "trunk"] = "cosine"  # shape of the curve
    warmup_epochs: NonNegativeFloat = 0.0  # linear from 0 to the peak
    final_share: ClosedShare = 0.0  # cosine: last lr / peak lr
    milestones: Shares = (0.5, 0.75)  # step: shares of the epochs at which the rate falls
    gamma: PositiveShare = 0.1  # step: factor at each milestone
    # trunk: last share of the epochs, in which the rate falls to 0; null: 0.2
    cooldown: OpenShare | None = Field(default=None, exclude_if=lambda share: share is None)

    @model_validator(mode="before")
    @classmethod
    def _cooldown(cls, value: object) -> object:
        if isinstance(value, dict) and value.get("name") == "trunk":
            return value | ({"cooldown": 0.2} if value.get("cooldown") is None else {})
        return value


class RecipeConfig(Frozen):
    """How a stage is trained. `epochs` is the length of the dense stage."""

    epochs: Epochs  # length of the dense stage
    batch_size: PositiveInt  # images of a step, over all ranks and micro-batches
    optimizer: OptimizerConfig
    schedule: ScheduleConfig = ScheduleConfig()
    label_smoothing: Share = 0.0  # share of a target that all classes get
    precision: Literal["fp32", "bf16_autocast"] = "fp32"  # precision of forward and backward passes
    sync_bn: bool = False  # batch-norm statistics over all ranks


def _schedule(value: object) -> object:
    """Return a list of magnitudes as a text, which tables can show; other values unchanged."""
    if not isinstance(value, list | tuple):
        return value
    return ", ".join(str(_magnitude(item)) for item in value)


MagnitudeSchedule = Annotated[str, BeforeValidator(_schedule)]


class CompressConfig(HasOptions):
    """How a trial gets from its dense stage to its sparsity (docs/compress.md).

    Levels are geometric: each removes `level_share` of the prunable weights that are left, and
    the last one lands on `sparsity` exactly, so that sparser trials share their first levels.
    `dense_long` is the control of equal budget: a trial with sparsity 0 that goes through as many
    levels as that sparsity would, without removing a weight.
    """

    sparsity: Share = 0.0  # share of the prunable weights that are zero at the end
    dense_long: OpenShare | None = None  # dense control: train as many levels as this sparsity
    method: str = "magnitude"  # a file of harness/compress/methods/, or of a plug-in
    scope: Literal["global", "layer"] = "global"  # compares all weights, or each layer's
    pruning: Literal["iterative", "one_shot", "gradual"] = "iterative"  # how it is done
    level_share: OpenShare = 0.2  # share of the remaining weights that a level removes
    levels: Shares | None = None  # sparsities of levels; null: geometric
    level_epochs: Epochs | None = None  # epochs of a level; null: recipe.epochs
    gradual_end: PositiveShare = 0.75  # gradual: share of training after which the sparsity stays
    rewind: Literal["learning_rate", "weights", "fine_tuning"] = "learning_rate"  # how levels train
    rewind_epoch: NonNegativeInt = 0  # weights: epoch of the dense stage; 0: initialisation
    fine_tune_lr: Rate | None = None  # constant rate of fine_tuning
    protect: Names = ("classifier",)  # `classifier`, `first_conv`, or names of parameters
    reestimate_batch_norm: bool = True  # do it after pruning, before retraining
    magnitude_schedule: MagnitudeSchedule = "constant"  # over the levels: docs/compress.md
    magnitude_span: Share = 0.5  # falling: from m * (1 + span) down to m * (1 - span)
    dense_magnitude: AnyMagnitude | None = None  # magnitude of the dense stage; null: the trial's

    @model_validator(mode="after")
    def _check_dense_long(self) -> CompressConfig:
        if self.dense_long is not None and self.sparsity != 0.0:
            raise ValueError(
                "dense_long is a dense control: give it with sparsity 0, or drop one of the two"
            )
        return self


class SurplusConfig(HasOptions):
    """Additional parameters that are gone before inference (docs/compress.md).

    A form is a path of stages of a pruned trial (`prune_away` and its control `weak_finish`) or a
    training graph around a dense one (`slice`, `fuse`).
    """

    form: str = "none"  # a file of harness/compress/surplus/, or of a plug-in
    weak: AnyMagnitude = "none"  # prune_away, weak_finish: magnitude at the end of training
    widths: Floats = (1.5, 2.0)  # slice: widths of the wide models, times the model's
    share: PositiveShare = 0.5  # slice: share of the steps that train the wide models
    expand: Annotated[int, Field(gt=0, le=64)] = 2  # fuse: inner channels, times the input's


class TeacherConfig(Frozen):
    """A trained network that labels, chooses or weighs augmented images (docs/difficulty.md).

    Losses are the teacher's, in nats, against the true label.
    """

    name: str | None = None  # a stage's id, or timm:NAME; null: no teacher
    labels: Literal["true", "hard", "soft"] = "true"  # the data set's, or the teacher's
    weight: PositiveShare = 1.0  # share of the teacher's labels in the targets
    candidates: Candidates = 1  # augmentations of an image to choose from
    target: NonNegativeFloat | None = None  # choose the candidate whose loss is nearest to this
    target_table: str | None = None  # instead of target: a CSV with a target for each size
    cap: PositiveFloat | None = None  # the loss above which images are dropped or count less
    beyond: Literal["drop", "down_weight"] = "drop"  # what happens to images above the cap

    @field_validator("labels", mode="before")
    @classmethod
    def _yaml_true(cls, value: object) -> object:
        return "true" if value is True else value

    @property
    def acts(self) -> bool:
        """Whether the teacher changes a training.

        It does not in an arm of a grid that names it but uses only the true labels.
        """
        return self.selects or (self.name is not None and self.labels != "true")

    @property
    def selects(self) -> bool:
        """Whether it decides which augmented images are learned from."""
        chooses = self.target is not None or self.target_table is not None
        return self.name is not None and (chooses or self.cap is not None)


class TrialConfig(Frozen):
    """One cell of a grid, fully resolved."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0  # seed of weights, data order and augmentation
    dataset: DatasetConfig
    model: ModelConfig
    augment: AugmentConfig
    recipe: RecipeConfig
    compress: CompressConfig = CompressConfig()
    surplus: SurplusConfig = SurplusConfig()
    teacher: TeacherConfig = TeacherConfig()


class StageAugment(Frozen):
    """The augmentation of a stage. `policy` is the complete text, with the magnitude."""

    policy: str  # "none", "randaug(n=2, m=0.3)"
    crop_padding: int
    flip: bool
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0


class PruneConfig(HasOptions):
    """How the parent's weights are pruned before this stage trains. Sparsity 0.0 prunes nothing.

    With `gradual_end`, the stage does not have a parent, and its own weights are pruned while it
    trains: the sparsity rises from 0 to `sparsity` until that share of its steps, along a cubic
    curve (Zhu and Gupta 2017).
    """

    sparsity: Share
    method: str
    scope: str
    protect: Names
    rewind: str
    reestimate_batch_norm: bool
    gradual_end: float | None = None


class StageSurplus(HasOptions):
    """Additional parameters while a stage trains; its final weights are the small model's."""

    form: str
    widths: Floats = ()
    share: float = 1.0
    expand: int = 0


class Continues(Frozen):
    """The id and the epochs of a finished stage that another one continues, optimizer included."""

    stage: str
    epoch: PositiveInt


class StageConfig(Frozen):
    """Everything that decides a stage's numbers; its hash is the stage's name.

    `parent` is the id of the stage whose final weights this one starts from, or null. `continues`
    is not part of the hash: the bits are those of a training in one go.
    """

    schema_number: int = SCHEMA_NUMBER
    parent: str | None = None
    seed: int
    dataset: DatasetConfig
    model: ModelConfig
    augment: StageAugment
    recipe: RecipeConfig  # `epochs` is this stage's own length
    prune: PruneConfig | None = None  # null for a dense stage
    surplus: StageSurplus | None = None
    teacher: TeacherConfig | None = None
    # for weight rewinding: the dense stage keeps this epoch's weights, and levels start from them
    rewind_epoch: int | None = None
    continues: Continues | None = Field(default=None, exclude_if=lambda value: value is None)

    @property
    def origin(self) -> str | None:
        """The id of the stage that has to be finished before this one, or None."""
        return self.continues.stage if self.continues is not None else self.parent

    @property
    def begin_epoch(self) -> int:
        """The epoch at which this stage's own training begins."""
        return 0 if self.continues is None else self.continues.epoch

    @property
    def own_epochs(self) -> int:
        """The epochs that this stage itself trains."""
        return self.recipe.epochs - self.begin_epoch

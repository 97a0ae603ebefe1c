"""What does not fit together in a trial's way to its size, said before anything is queued."""

from __future__ import annotations

from collections.abc import Iterator

from harness.compress import methods
from harness.errors import UserError, nearest
from harness.models.registry import TIMM
from harness.schema import WIDEST, StageConfig, TrialConfig
from harness.sweep import targets
from harness.sweep.levels import trial_levels
from harness.sweep.stage import steps

Mistake = tuple[str, str]
ROLES = ("classifier", "first_conv")
"""What `registry.roles` knows of every family."""
CHANNEL_FAMILIES = (
    "cifar_resnet", "wide_resnet", "cifar_stem_resnet", "cifar_mobilenetv2", "resnet",
    "mobilenetv2", "mobilenetv3_large", "mobilenetv3_small", "efficientnet",
)  # fmt: skip
"""Families whose channels can be removed: their forward passes name no number of channels."""
SLICE_FAMILIES = tuple(name for name in CHANNEL_FAMILIES if name != "wide_resnet")
"""Families that are a slice of themselves at a greater width: same layers, more channels. A
wide_resnet of width 1 lacks the first projection that other widths have."""
FUSE_FAMILIES = ("cifar_resnet", "wide_resnet", "cifar_stem_resnet", "resnet")
"""Families with a dense convolution of 3x3 or more that batch norm alone follows."""


def misfits(trial: TrialConfig) -> list[Mistake]:
    """(key path, sentence) of everything that is wrong with a trial's compression and surplus."""
    found = [*_pruning(trial), *_rewinding(trial), *_surplus(trial)]
    judged = list(_teacher(trial))
    for wrong, attempt in ((found, steps), (judged, targets.resolved)):
        if wrong:  # what it is made of is wrong already
            continue
        try:
            attempt(trial)
        except UserError as error:
            key, _, sentence = str(error).partition(": ")
            wrong.append((key, sentence) if sentence else ("compress", key))
    return [*found, *judged]


def depends_on_layers(stage: StageConfig) -> bool:
    """Whether only the model, once built, tells if a stage's pruning and surplus suit it."""
    prune = stage.prune
    chooses = prune is not None and (
        prune.method not in ("magnitude", "random") or not set(prune.protect) <= set(ROLES)
    )
    return chooses or stage.surplus is not None


def _pruning(trial: TrialConfig) -> Iterator[Mistake]:
    compress = trial.compress
    if compress.method not in methods.known():
        sentence = f"there is no method '{compress.method}'"
        yield "compress.method", f"{sentence}{nearest(compress.method, methods.known())}"
        return
    if compress.sparsity == 0.0 and compress.dense_long is None:
        return
    for name in compress.protect:
        if name not in ROLES and not name.endswith(".weight"):
            yield (
                "compress.protect",
                (f"'{name}' is no role{nearest(name, ROLES)} and no weight, such as conv1.weight"),
            )
    if compress.levels is not None and compress.pruning != "iterative":
        yield (
            "compress.levels",
            (f"pruning {compress.pruning} passes through no list of levels: leave it out"),
        )
    if compress.pruning == "gradual":
        if compress.dense_long is not None:
            yield (
                "compress.dense_long",
                ("gradual pruning has no levels: its dense control is a trial of sparsity 0"),
            )
        if compress.method not in ("magnitude", "random"):
            yield (
                "compress.pruning",
                (f"gradual works with method magnitude or random, not {compress.method}"),
            )
        if compress.magnitude_schedule != "constant":
            yield (
                "compress.magnitude_schedule",
                ("gradual pruning has no levels for a magnitude to follow: set it to constant"),
            )
        return
    if compress.method == "channel":
        if compress.scope != "layer":
            yield (
                "compress.scope",
                ("method channel removes the same share of the channels of every layer: set layer"),
            )
        if trial.model.family not in CHANNEL_FAMILIES:
            yield "compress.method", _unsuited("channel pruning", trial, CHANNEL_FAMILIES)
    if compress.method == "nm":
        try:
            levels = trial_levels(compress)
        except UserError:
            return  # said by `steps`
        for level in levels:
            if (level * 4) % 1.0:
                yield (
                    "compress.sparsity",
                    (
                        "method nm removes 1, 2 or 3 of every 4 weights: levels are 0.25, 0.5 and "
                        f"0.75, not {level:g} (2:4 is sparsity 0.5 with pruning one_shot)"
                    ),
                )


def _rewinding(trial: TrialConfig) -> Iterator[Mistake]:
    compress = trial.compress
    late = compress.rewind == "weights" and compress.rewind_epoch >= trial.recipe.epochs
    if late:  # also of a dense trial, which shares its stage with the pruned ones
        yield (
            "compress.rewind_epoch",
            (
                f"{compress.rewind_epoch} is not before the end of the dense stage, which has "
                f"{trial.recipe.epochs} epochs"
            ),
        )
    if compress.sparsity == 0.0 and compress.dense_long is None:
        return
    if compress.rewind != "learning_rate" and compress.pruning == "gradual":
        yield "compress.rewind", "gradual pruning retrains nothing: set it to learning_rate"
    if compress.rewind == "fine_tuning" and compress.fine_tune_lr is None:
        yield (
            "compress.fine_tune_lr",
            (
                "is missing: rewind fine_tuning needs a learning rate, usually the last one of the "
                f"dense training (the peak is {trial.recipe.optimizer.lr:g})"
            ),
        )
    if compress.rewind == "weights":
        if compress.method == "channel":
            yield (
                "compress.rewind",
                (
                    "method channel changes the shapes of the weights: rewind learning_rate or "
                    "fine_tuning goes on from what is left"
                ),
            )
        if compress.dense_long is not None:
            yield (
                "compress.rewind",
                (
                    "weights would have the dense_long control repeat its own training: use "
                    "learning_rate"
                ),
            )


def _surplus(trial: TrialConfig) -> Iterator[Mistake]:
    surplus, compress = trial.surplus, trial.compress
    if surplus.form in ("prune_away", "weak_finish"):
        if compress.sparsity == 0.0 or compress.pruning == "gradual":
            yield (
                "surplus.form",
                (
                    f"{surplus.form} is a path of levels: give a sparsity above 0, with pruning "
                    "one_shot or iterative"
                ),
            )
        if compress.magnitude_schedule != "constant":
            yield (
                "compress.magnitude_schedule",
                (f"surplus {surplus.form} says itself where magnitude is weak: set it to constant"),
            )
        if compress.dense_magnitude is not None:
            yield (
                "compress.dense_magnitude",
                (f"surplus {surplus.form} says itself how strong the dense stage is: leave it out"),
            )
        if surplus.form == "weak_finish":
            if (compress.level_epochs or trial.recipe.epochs) < 2:
                yield "compress.level_epochs", "weak_finish halves the last level: give 2 or more"
            if compress.rewind != "learning_rate":
                yield "compress.rewind", "weak_finish works with learning_rate only"
    if surplus.form in ("slice", "fuse"):
        if compress.sparsity > 0.0 or compress.dense_long is not None:
            yield (
                "surplus.form",
                (
                    f"{surplus.form} surrounds a dense model: set sparsity 0 without dense_long "
                    "(prune_away is the form for pruned ones)"
                ),
            )
        families = SLICE_FAMILIES if surplus.form == "slice" else FUSE_FAMILIES
        if trial.model.family not in families:
            yield "surplus.form", _unsuited(f"surplus {surplus.form}", trial, families)
    if surplus.form == "slice" and trial.recipe.sync_bn:
        yield "recipe.sync_bn", "surplus slice takes batch norm per rank: set it to false"
    widths = surplus.widths
    if surplus.form != "slice":
        return
    if not widths or min(widths) <= 1.0 or len(set(widths)) < len(widths):
        yield (
            "surplus.widths",
            (
                f"{list(widths)}: wider networks around the small one are over 1 times as wide, "
                "each of its own width, such as [1.5, 2]"
            ),
        )
    elif trial.model.width * max(widths) > WIDEST:
        yield (
            "surplus.widths",
            f"{max(widths):g} times width {trial.model.width:g} is more than {WIDEST:g}",
        )


def _teacher(trial: TrialConfig) -> Iterator[Mistake]:
    teacher, augment = trial.teacher, trial.augment
    chooses, weighs = teacher.target is not None, teacher.cap is not None
    if teacher.target_table is not None:
        if chooses:
            yield "teacher.target_table", "says the target, so leave teacher.target out"
        chooses = True
    does = teacher.labels != "true" or chooses or weighs
    if does and teacher.name is None:
        yield "teacher.name", "is missing: who labels, chooses or weighs? Name a stage or timm:NAME"
    if chooses != (teacher.candidates > 1):
        yield "teacher.target", "to choose takes both a target and more than one of candidates"
    if (chooses or weighs) and (augment.mixup or augment.cutmix):
        yield "teacher", "it judges images with one true label: set mixup and cutmix to 0"
    if teacher.cap is not None and (teacher.target or 0.0) > teacher.cap:
        yield (
            "teacher.cap",
            f"{teacher.cap:g} is below the target {teacher.target:g}: no chosen image would count",
        )
    if weighs and trial.recipe.label_smoothing:
        yield "teacher.cap", "weights the targets, which label_smoothing would undo: set it to 0"
    if teacher.name is not None and ("/" in teacher.name or "@" in teacher.name):
        yield (
            "teacher.name",
            (
                f"{teacher.name} is a file, whose content no stage id would tell: training takes a "
                "stage's id or timm:NAME"
            ),
        )


def _unsuited(what: str, trial: TrialConfig, families: tuple[str, ...]) -> str:
    known = "" if not trial.model.family.startswith(TIMM) else " (a model of timm's)"
    return (
        f"{what} does not suit the family {trial.model.family}{known}; it suits "
        f"{', '.join(families)}"
    )

"""Check that the parts of a trial fit together, before anything is queued.

Every mistake is a sentence that begins with the key of the wrong value: "compress.levels: ...".
Checks of a single method or form of surplus are in its file in `harness/compress`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from harness.compress.methods import METHODS, Method
from harness.compress.surplus import FORMS, Form
from harness.errors import UserError, nearest
from harness.models.registry import TIMM
from harness.plugins import load_plugins
from harness.schema import CompressConfig, Options, StageConfig, TrialConfig
from harness.sweep import tables
from harness.sweep.levels import trial_levels
from harness.sweep.mistakes import Mistakes, validate
from harness.sweep.stage import steps

ROLES = ("classifier", "first_conv")
"""The roles that `registry.roles` gives for every family but some of timm's."""

MAX_SAFE_SPARSITY = 0.99
"""Up to this sparsity every model keeps some weights."""


def misfits(trial: TrialConfig) -> list[tuple[str, str]]:
    """Return (key path, sentence) of everything that does not fit together in a trial."""
    of_path = [*_pruning(trial), *_rewinding(trial), *_surplus(trial)] or _attempt(steps, trial)
    of_teacher = [*_teacher(trial)] or _attempt(tables.with_target, trial)
    parts = [mistake.partition(": ") for mistake in (*of_path, *of_teacher)]
    return [(key, sentence) for key, _, sentence in parts]


def depends_on_layers(stage: StageConfig) -> bool:
    """Return whether the model has to be built to know if a stage suits it.

    timm's models declare neither the images that they take nor their classifier layers. No model
    declares whether all its batch norms can work over several ranks. A family of a plug-in may
    compute its weights from others.
    """
    is_timms = stage.model.family.startswith(TIMM)
    if is_timms or stage.surplus is not None or stage.recipe.sync_bn:
        return True
    prune = stage.prune
    if prune is None:
        return False
    if prune.sparsity > MAX_SAFE_SPARSITY or load_plugins():
        return True
    return not (METHODS.get(prune.method).suits_every_model and set(prune.protect) <= set(ROLES))


def _attempt(make: Callable[[TrialConfig], object], trial: TrialConfig) -> list[str]:
    """Return the UserError of `make(trial)` as a list of one sentence; empty if it succeeds."""
    try:
        make(trial)
    except UserError as error:
        return [str(error)]
    return []


def _options(key: str, plugin: Method | Form, options: Options) -> Iterator[str]:
    """Compare `compress.options` or `surplus.options` with what the method or form declares."""
    given = options.model_extra or {}
    if given and not plugin.options_model.model_fields:
        yield f"{key}: {plugin.name} has no options: set {key}=null"
        return
    mistakes = Mistakes()
    validate(plugin.options_model, given, mistakes, prefix=f"{key}.")
    yield from (f"{place}: {sentence}" for place, sentence in mistakes)


def _is_plain_dense(compress: CompressConfig) -> bool:
    return compress.sparsity == 0.0 and compress.dense_long is None


def _pruning(trial: TrialConfig) -> Iterator[str]:
    compress = trial.compress
    try:
        method = METHODS.get(compress.method)
    except UserError as error:
        yield f"compress.method: {error}"
        return
    yield from _options("compress.options", method, compress.options)
    if _is_plain_dense(compress):
        return
    for name in compress.protect:
        if name not in ROLES and not name.endswith(".weight"):
            yield (
                f"compress.protect: '{name}' is not a role{nearest(name, ROLES)} and not the name "
                "of a weight, such as conv1.weight"
            )
    if compress.levels is not None and compress.pruning != "iterative":
        reason = f"pruning {compress.pruning} does not pass through a list of levels"
        yield f"compress.levels: {reason}: set compress.levels=null"
    if compress.pruning == "gradual":
        if compress.dense_long is not None:
            reason = "gradual pruning has no levels"
            yield f"compress.dense_long: {reason}: its dense control is a trial of sparsity 0"
        if compress.magnitude_schedule != "constant":
            reason = "gradual pruning has no levels for a magnitude to follow"
            yield f"compress.magnitude_schedule: {reason}: set it to constant"
        if not method.works_gradually:
            others = [name for name in METHODS.names() if METHODS.get(name).works_gradually]
            reason = f"gradual works with method {' or '.join(others)}"
            yield f"compress.pruning: {reason}, not {method.name}"
            return
    try:
        levels = trial_levels(compress)
    except UserError:
        levels = ()  # `steps` raises the same error, and `misfits` reports it
    yield from method.misfits(trial, levels)


def _rewinding(trial: TrialConfig) -> Iterator[str]:
    compress = trial.compress
    if compress.rewind == "weights" and compress.rewind_epoch >= trial.recipe.epochs:
        # also for dense trials, because pruned trials share their dense stage
        yield (
            f"compress.rewind_epoch: {compress.rewind_epoch} is not before the end of the dense "
            f"stage, which has {trial.recipe.epochs} epochs"
        )
    if _is_plain_dense(compress):
        return
    if compress.rewind != "learning_rate" and compress.pruning == "gradual":
        yield "compress.rewind: gradual pruning retrains nothing: set it to learning_rate"
    if compress.rewind == "fine_tuning" and compress.fine_tune_lr is None:
        yield (
            "compress.fine_tune_lr: is missing: rewind fine_tuning needs a learning rate, usually "
            f"the last one of the dense training (the peak is {trial.recipe.optimizer.lr:g})"
        )
    if compress.rewind == "weights" and compress.dense_long is not None:
        yield (
            "compress.rewind: weights would make the dense_long control repeat its own training: "
            "use learning_rate"
        )


def _surplus(trial: TrialConfig) -> Iterator[str]:
    try:
        form = FORMS.get(trial.surplus.form)
    except UserError as error:
        yield f"surplus.form: {error}"
        return
    yield from _options("surplus.options", form, trial.surplus.options)
    yield from form.misfits(trial)


def _teacher(trial: TrialConfig) -> Iterator[str]:
    teacher, augment = trial.teacher, trial.augment
    has_target, has_cap = teacher.target is not None, teacher.cap is not None
    if teacher.target_table is not None:
        if has_target:
            yield "teacher.target_table: gives the target: set teacher.target=null"
        has_target = True
    if (teacher.labels != "true" or has_target or has_cap) and teacher.name is None:
        needs = "labels, target and cap need a teacher, a stage's id or timm:NAME"
        yield f"teacher.name: is missing: {needs}"
    if has_target != (teacher.candidates > 1):
        yield "teacher.target: set both a target and teacher.candidates > 1, or neither"
    if (has_target or has_cap) and (augment.mixup or augment.cutmix):
        yield "teacher: judges images with one true label: set mixup and cutmix to 0"
    if teacher.cap is not None and (teacher.target or 0.0) > teacher.cap:
        below = f"{teacher.cap:g} is below the target {teacher.target:g}"
        yield f"teacher.cap: {below}: no chosen image would count"
    if has_cap and trial.recipe.label_smoothing:
        yield "teacher.cap: weights the targets, which label_smoothing would undo: set it to 0"
    if teacher.name is not None and ("/" in teacher.name or "@" in teacher.name):
        yield (
            f"teacher.name: {teacher.name} is a file, whose content a stage's id does not cover: "
            "give the id of a stage, or timm:NAME"
        )

"""The list of what a job would refuse in a config, and that the models of a config cannot see.

A launch and its dry run list all of these mistakes at once, before anything is written. Each check
yields mistakes: the key path of a value, and a sentence about it. The checks are in four tuples, by
what they look at: `SECTION_CHECKS` and `TRIAL_CHECKS` while the grid is expanded, `LAUNCH_CHECKS`
at the expanded grid, and `TRAINING_CHECKS` only for commands that train, because `status` and the
analysis must also show a sweep whose teacher is gone, from any machine.

What only built layers tell is in `harness/compress/layers.py`, and what keeps this machine from
training a correct config in `harness/commands/preflight.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from harness.cluster_schema import ClusterConfig
from harness.config.launch import Launch
from harness.errors import UserError
from harness.run_schema import RunConfig
from harness.schema import AugmentConfig, DatasetConfig, ModelConfig, RecipeConfig, TrialConfig
from harness.sweep import check as compression
from harness.sweep import teachers, trunk
from harness.sweep.jobs import RULE_NAMES
from harness.sweep.mistakes import Mistake
from harness.sweep.stage import path_configs, steps
from harness.sweep.where import parse

Sections = Mapping[str, Any]
"""Top-level keys of a trial with their models; sections that are not valid are absent."""
FORBIDDEN = re.compile(r"[:%\\\n\ud800-\udfff]")
"""Characters of a path that goes into PYTHONPATH, and in which SLURM expands %j; the last ones
stand for bytes that are not UTF-8, which the text of a job cannot hold."""


def check_sections(sections: Sections) -> list[Mistake]:
    """Return what is wrong with the sections of a trial."""
    return [mistake for check in SECTION_CHECKS for mistake in check(sections)]


def check_trial(config: TrialConfig) -> list[Mistake]:
    """Return what does not fit together in a trial: all mistakes of the first check that has any.

    A path of stages cannot be made of a trial that the checks before have refused.
    """
    for check in TRIAL_CHECKS:
        if mistakes := list(check(config)):
            return mistakes
    return []


def check_launch(launch: Launch, trains: bool) -> list[Mistake]:
    """Return what does not fit together in how, where and with what the trials are trained."""
    if mistakes := list(resource_conditions(launch)):
        return mistakes  # no other check can tell what resources a job has
    checks = (*LAUNCH_CHECKS, *TRAINING_CHECKS) if trains else LAUNCH_CHECKS
    return [mistake for check in checks for mistake in check(launch)]


# --- sections -----------------------------------------------------------------------------------


def dataset_sizes(sections: Sections) -> Iterator[Mistake]:
    """Refuse unknown data sets, and sizes that the data set does not have."""
    from harness.data.catalog import misfits

    dataset: DatasetConfig | None = sections.get("dataset")
    for sentence in misfits(dataset) if dataset else ():
        yield _split(sentence, "dataset")


def model_size(sections: Sections) -> Iterator[Mistake]:
    """Refuse unknown families, and depths, widths and image sizes that a family does not have."""
    from harness.models import registry

    model: ModelConfig | None = sections.get("model")
    for sentence in registry.check(model, _side(sections.get("dataset"))) if model else ():
        yield _split(sentence, "model")


def start_resolution(sections: Sections) -> Iterator[Mistake]:
    """Refuse training images that grow where the family takes one size, or no small ones."""
    from harness.models import registry

    dataset: DatasetConfig | None = sections.get("dataset")
    model: ModelConfig | None = sections.get("model")
    family = registry.find_family(model.family) if model else None
    if dataset is None or dataset.start_resolution is None or family is None:
        return
    if registry.takes_one_size(family.name):
        sentence = f"{family.name} learns a position for each patch of images of one size"
        yield "dataset.start_resolution", f"{sentence}: set dataset.start_resolution=null"
    elif dataset.start_resolution < family.min_resolution <= (_side(dataset) or 0):
        sentence = f"{family.name} takes images from {family.min_resolution} pixels up"
        yield "dataset.start_resolution", f"{sentence}: begin there, or higher."


def policy(sections: Sections) -> Iterator[Mistake]:
    """Refuse policies and spaces that cannot be read."""
    from harness.augment.policy import parse_policy, with_magnitude

    augment: AugmentConfig | None = sections.get("augment")
    try:
        if augment is not None:
            parse_policy(with_magnitude(augment.policy, augment.magnitude))
    except UserError as error:
        yield "augment.policy", str(error)


def padding_within_image(sections: Sections) -> Iterator[Mistake]:
    """Refuse a padding so wide that a crop may hold nothing of the image."""
    dataset: DatasetConfig | None = sections.get("dataset")
    augment: AugmentConfig | None = sections.get("augment")
    side = (dataset.start_resolution if dataset else None) or _side(dataset)
    if augment and side and augment.crop_padding >= side:
        sentence = f"{augment.crop_padding} is not less than the {side} pixels of an image's side"
        yield "augment.crop_padding", f"{sentence}: a crop could hold nothing of the image"


def nesterov_momentum(sections: Sections) -> Iterator[Mistake]:
    """Refuse Nesterov's method without momentum."""
    recipe: RecipeConfig | None = sections.get("recipe")
    if recipe is not None and recipe.optimizer.nesterov and not recipe.optimizer.momentum:
        yield "recipe.optimizer.nesterov", "needs a momentum above 0"


def even_batch(sections: Sections) -> Iterator[Mistake]:
    """Refuse an odd batch whose neighbours are mixed."""
    recipe: RecipeConfig | None = sections.get("recipe")
    augment: AugmentConfig | None = sections.get("augment")
    if recipe and augment and (augment.mixup or augment.cutmix) and recipe.batch_size % 2:
        sentence = f"{recipe.batch_size} is odd, and mixup and cutmix pair neighbours"
        yield "recipe.batch_size", f"{sentence}: make it even"


def full_batch(sections: Sections) -> Iterator[Mistake]:
    """Refuse a batch of more images than the training set has."""
    from harness.data.catalog import find_info

    recipe: RecipeConfig | None = sections.get("recipe")
    dataset: DatasetConfig | None = sections.get("dataset")
    if recipe is None or dataset is None or (info := find_info(dataset)) is None:
        return
    images = dataset.train_size or info.train_size - dataset.validation_size
    if 0 < images < recipe.batch_size:
        sentence = f"{recipe.batch_size} is more than the {images} training images"
        yield "recipe.batch_size", f"{sentence}: at least one batch must be full"


def _split(sentence: str, section: str) -> Mistake:
    """Return a sentence that may begin with its key as a mistake of that key, or of the section."""
    key, _, rest = sentence.partition(": ")
    return (key, rest) if key.startswith(f"{section}.") else (section, sentence)


def _side(dataset: DatasetConfig | None) -> int | None:
    """Return the side of the images of evaluation in pixels; None for an unknown data set."""
    from harness.data.catalog import find_info

    info = find_info(dataset) if dataset else None
    return (dataset.resolution if dataset else None) or (info.resolution if info else None)


# --- trials -------------------------------------------------------------------------------------


def warm_up(config: TrialConfig) -> Iterator[Mistake]:
    """Refuse a warm-up that is longer than a stage, or than a trunk before its cool-down."""
    for step in steps(config):
        schedule, epochs = step.recipe.schedule, step.recipe.epochs
        warmup, cooldown = schedule.warmup_epochs, 0.0
        if schedule.name == "trunk" and schedule.cooldown is not None:
            cooldown = trunk.cooldown_epochs(schedule.cooldown, epochs)
        if warmup > epochs - cooldown:
            before = f" before its cool-down of {cooldown:g}" if cooldown else ""
            sentence = f"{warmup:g} epochs are more than a stage of {epochs} epochs has{before}"
            yield "recipe.schedule.warmup_epochs", f"{sentence}: make the warm-up shorter"
            return


def whole_epochs(config: TrialConfig) -> Iterator[Mistake]:
    """Refuse a trunk that does not end where an epoch ends."""
    if config.recipe.schedule.name == "trunk":
        dense, *_ = path_configs(config)
        if sentence := trunk.misfit(dense):
            yield "recipe.epochs", sentence


# --- launches -----------------------------------------------------------------------------------


def resource_conditions(launch: Launch) -> Iterator[Mistake]:
    """Refuse conditions of resource rules that cannot be read."""
    for number, rule in enumerate(launch.cluster.resources):
        try:
            parse(rule.where, RULE_NAMES)
        except UserError as error:
            yield f"cluster.resources[{number}].where", str(error)


def zero_stage(launch: Launch) -> Iterator[Mistake]:
    """Refuse ZeRO with an engine that does not have it."""
    run = launch.run
    if run.zero_stage and run.engine != "deepspeed":
        sentence = f"{run.zero_stage} needs run.engine=deepspeed"
        yield "run.zero_stage", f"{sentence}: set run.zero_stage=0, or that engine"


def equal_shares(launch: Launch) -> Iterator[Mistake]:
    """Refuse batches that the ranks cannot share, in even parts where neighbours are mixed."""
    for config in launch.examples:
        size, augment = config.recipe.batch_size, config.augment
        processes = launch.job_settings(config)[1].processes
        if size % processes:
            yield (
                "recipe.batch_size",
                f"{size} cannot be shared equally by run.processes={processes}: make it a "
                f"multiple of {processes}",
            )
        elif processes > 1 and (augment.mixup or augment.cutmix) and size // processes % 2:
            yield (
                "recipe.batch_size",
                f"{size} are {size // processes} images on each of run.processes={processes}, and "
                f"mixup and cutmix pair neighbours: make it a multiple of {2 * processes}",
            )


def idle_teachers(launch: Launch) -> Iterator[Mistake]:
    """Refuse a teacher that no trial uses."""
    named = {trial.config.teacher for trial in launch.grid.trials}
    if any(teacher.name for teacher in named) and not any(teacher.acts for teacher in named):
        sentence = "it does nothing: set teacher.labels, target with candidates, or cap"
        yield "teacher", sentence


def usable_teachers(launch: Launch) -> Iterator[Mistake]:
    """Refuse teachers that are missing, or do not suit the images of their students."""
    configs = [trial.config for trial in launch.grid.trials if trial.config.teacher.acts]
    pairs = {(str(config.teacher.name), config.dataset) for config in configs}
    for name, dataset in sorted(pairs, key=str):
        if problem := teachers.misfit(name, launch.store, dataset):
            yield "teacher.name", problem


def readable_data(launch: Launch) -> Iterator[Mistake]:
    """Refuse a loader that can read no files of a data set, wherever they are."""
    from harness.data.catalog import info_of, unsuited

    for dataset in dict.fromkeys(trial.config.dataset for trial in launch.grid.trials):
        if sentence := unsuited(info_of(dataset), launch.run.loader):
            yield "run.loader", sentence


def gpus_requested_once(launch: Launch) -> Iterator[Mistake]:
    """Refuse jobs that request GPUs in two ways, or a type of GPUs but no GPU."""
    for config in launch.examples:
        cluster, _ = launch.job_settings(config)
        gpus, gpu_type = cluster.gpus_per_node, cluster.slurm.gpu_type
        if cluster.executor != "slurm":
            continue
        if gpus and (named := cluster.slurm.gpu_options()):
            yield (
                "cluster.slurm.extra",
                f"has {', '.join(named)}, and cluster.gpus_per_node={gpus}: ask for GPUs once, "
                "with gpus_per_node and slurm.gpu_type",
            )
        if gpu_type and not gpus:
            yield (
                "cluster.slurm.gpu_type",
                f"{gpu_type} has no effect with cluster.gpus_per_node=0: set gpus_per_node, or "
                "gpu_type=null",
            )


def gpu_of_each_rank(launch: Launch) -> Iterator[Mistake]:
    """Refuse numbers of ranks, nodes and GPUs that do not give each rank one GPU."""
    for config in launch.examples:
        cluster, run = launch.job_settings(config)
        gpus, nodes = cluster.gpus_per_node, cluster.slurm.nodes
        if cluster.executor == "local":
            if 0 < gpus < run.processes and run.device != "cpu":
                sentence = (
                    f"{run.processes} ranks need a GPU each, and cluster.gpus_per_node={gpus}"
                )
                yield "run.processes", f"{sentence}: set run.processes={gpus}, or more GPUs"
        elif run.processes % nodes:
            sentence = f"{run.processes} cannot be shared equally by cluster.slurm.nodes={nodes}"
            yield "run.processes", f"{sentence}: make it a multiple"
        elif gpus and (ranks := run.processes // nodes) != gpus:
            yield (
                "run.processes",
                f"{run.processes} on {nodes} node(s) are {ranks} rank(s) for "
                f"cluster.gpus_per_node={gpus}, and each rank uses one GPU: set run.processes="
                f"{nodes * gpus} or cluster.gpus_per_node={ranks}",
            )


def batch_norm_over_ranks(launch: Launch) -> Iterator[Mistake]:
    """Refuse batch-norm statistics over ranks on CPUs, which torch does not offer."""
    for config in launch.examples:
        cluster, run = launch.job_settings(config)
        if config.recipe.sync_bn and run.processes > 1 and _trains_on_cpu(cluster, run):
            yield (
                "recipe.sync_bn",
                f"works between GPUs only, not for {run.processes} processes on CPU: set "
                "run.processes=1, which has the same statistics, or cluster.gpus_per_node=N",
            )


def _trains_on_cpu(cluster: ClusterConfig, run: RunConfig) -> bool:
    """Return whether jobs train on CPUs, because `run` says so or they request no GPU."""
    requests_gpus = cluster.executor == "slurm" and cluster.slurm.gpu_options()
    return run.device == "cpu" or (run.device == "auto" and not requests_gpus)


def signal_before_limit(launch: Launch) -> Iterator[Mistake]:
    """Refuse a signal that comes before a job has trained."""
    for config in launch.examples:
        cluster, _ = launch.job_settings(config)
        seconds = cluster.slurm.signal_seconds
        if cluster.executor == "slurm" and seconds >= cluster.timeout_min * 60:
            yield (
                "cluster.slurm.signal_seconds",
                f"{seconds} is not less than the time limit of {cluster.timeout_min} minutes: jobs "
                "would only ever save; give them more time, or set a smaller number",
            )


def path_of_store(launch: Launch) -> Iterator[Mistake]:
    """Refuse a path of the store that SLURM or PYTHONPATH would change."""
    path = launch.store.absolute()
    forbidden = set(FORBIDDEN.findall(str(path)))
    if launch.cluster.executor == "slurm" and forbidden:
        listed = " ".join(map(repr, sorted(forbidden)))
        yield "store", f"{path} has {listed} in its path, which SLURM changes: choose another"


SECTION_CHECKS: tuple[Callable[[Sections], Iterator[Mistake]], ...] = (
    dataset_sizes,
    model_size,
    start_resolution,
    policy,
    padding_within_image,
    nesterov_momentum,
    even_batch,
    full_batch,
)
TRIAL_CHECKS: tuple[Callable[[TrialConfig], Iterable[Mistake]], ...] = (
    compression.misfits,  # pruning, surplus and teachers
    warm_up,
    whole_epochs,
)
LAUNCH_CHECKS: tuple[Callable[[Launch], Iterator[Mistake]], ...] = (
    zero_stage,
    equal_shares,
    idle_teachers,
)
TRAINING_CHECKS: tuple[Callable[[Launch], Iterator[Mistake]], ...] = (
    usable_teachers,
    readable_data,
    gpus_requested_once,
    gpu_of_each_rank,
    batch_norm_over_ranks,
    signal_before_limit,
    path_of_store,
)

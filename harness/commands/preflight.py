"""What launch checks after the config and before anything is trained, queued or written.

`check_layers` and `check_continued` are the end of the list of mistakes in a config, whose
beginning is `harness/config/checks.py`. `HINDRANCES` lists what keeps this machine from a sweep
whose config is correct: a launch is refused with these sentences, and a dry run prints them as
notes, because people plan on laptops.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence

from harness.cluster.decision import job_settings as decision_settings
from harness.config import Launch
from harness.errors import UserError
from harness.run_schema import RunConfig
from harness.schema import DatasetConfig
from harness.store import provenance
from harness.store.store import Store
from harness.sweep import teachers
from harness.sweep.check import depends_on_layers
from harness.sweep.jobs import longest_dense
from harness.sweep.mistakes import Mistakes
from harness.sweep.plan import Plan, lineage, trees

UNCHECKED_LAYERS = (
    "torch cannot be imported here, so it was not checked whether every model takes its images and "
    "has layers that suit its pruning and surplus"
)


def check_layers(launch: Launch, plan: Plan, remaining: Sequence[str]) -> list[str]:
    """Raise UserError if a model does not suit its images, pruning or surplus, naming each.

    Returns a note where this cannot be checked because torch cannot be imported.
    """
    mistakes, notes = layer_mistakes(launch, plan, remaining)
    mistakes.raise_any(f"the grid {launch.grid.name} has")
    return notes


def layer_mistakes(
    launch: Launch, plan: Plan, remaining: Iterable[str]
) -> tuple[Mistakes, list[str]]:
    """Return what is wrong with the models of these stages, and a note if that was not checked."""
    mistakes = Mistakes()
    stages = []
    for stage, run in job_runs(launch, plan, remaining).items():
        config = plan.stages[stage]
        share = config.recipe.batch_size // run.processes
        fewest = share // run.micro_batches(share)
        if fewest == 1 or depends_on_layers(config):
            stages.append((config, fewest))
    if not stages:
        return mistakes, []
    try:
        from harness.compress import layers
    except ImportError:
        return mistakes, [UNCHECKED_LAYERS]
    for sentence in layers.misfits(stages):
        key, _, rest = sentence.partition(": ")
        mistakes.add(key, rest)
    return mistakes, []


def check_continued(launch: Launch, plan: Plan, remaining: Sequence[str]) -> None:
    """Raise UserError if a finished trunk stage keeps its optimizer in other parts than jobs have.

    Under ZeRO 1 each rank saves its own part, and only as many ranks can continue from them.
    """
    store, mistakes, to_train = Store(launch.store), Mistakes(), set(remaining)
    for stage, run in job_runs(launch, plan, remaining).items():
        config = plan.stages[stage]
        if config.continues is None or config.origin in to_train or store.newest_step(stage):
            continue
        parts = run.processes if run.engine == "deepspeed" and run.zero_stage else 0
        others = {
            trunk: saved
            for trunk in lineage(plan.stages, config.continues.stage)
            if (saved := _saved_parts(store, trunk)) not in (None, parts)
        }
        if config.origin in others:
            folders = " ".join(str(store.folder(trunk) / "checkpoint") for trunk in others)
            mistakes.add(
                "run.zero_stage",
                f"{_describe_parts(parts)} cannot continue stage {config.origin}, a trunk of "
                f"{config.begin_epoch} epochs that {_describe_parts(others[config.origin])} has "
                "trained: set run.zero_stage and run.processes as they were, or delete "
                f"{folders} to train that trunk again",
            )
    mistakes.raise_any(f"the grid {launch.grid.name} has")


def job_runs(launch: Launch, plan: Plan, remaining: Iterable[str]) -> dict[str, RunConfig]:
    """Return the run settings of the job of each of the `remaining` stages, by stage."""
    runs: dict[str, RunConfig] = {}
    for tree in trees(plan, set(remaining)):
        _, run = launch.job_settings(longest_dense(plan, tree))
        runs.update(dict.fromkeys(tree, run))
    return runs


def _saved_parts(store: Store, stage: str) -> int | None:
    """Return in how many parts a stage has saved its optimizer: the ranks of ZeRO 1, or 0.

    None if nothing is recorded or kept of it.
    """
    records = provenance.records(store.folder(stage))
    if not records or not store.newest_step(stage):
        return None
    size = records[-1].get("world_size")
    return size if records[-1].get("zero_stage") and isinstance(size, int) else 0


def _describe_parts(parts: int | None) -> str:
    """Return a run in words; `parts`: the ranks of ZeRO 1, or 0 for a whole optimizer."""
    return f"ZeRO 1 with {parts} process(es)" if parts else "a run without ZeRO 1"


def check_machine(launch: Launch) -> None:
    """Raise UserError with all that keeps this machine from the sweep; download missing data.

    SLURM is asked whether it would accept the jobs. Nothing is written to the store.
    """
    if sentences := hindrances(launch):
        raise UserError("\n".join(sentences))
    if launch.cluster.executor == "slurm":
        from harness.cluster.sbatch import check_jobs  # imports submitit

        kinds = [launch.job_settings(example) for example in launch.examples]
        if launch.settle is not None:
            kinds.append(decision_settings(launch.cluster))
        check_jobs(kinds)
    provide_data(launch)


def hindrances(launch: Launch) -> list[str]:
    """Return all that keeps this machine from training or queueing the sweep."""
    return list(dict.fromkeys(s for check in HINDRANCES for s in check(launch)))


def dry_run_notes(launch: Launch) -> list[str]:
    """Return what keeps this machine from the sweep, what is downloaded, and what is unchecked."""
    downloads = [f"{problem} launch downloads it" for _, problem in _data(launch, downloads=True)]
    return [*hindrances(launch), *dict.fromkeys(downloads), *unchecked(launch)]


def unchecked(launch: Launch) -> list[str]:
    """Return a sentence for each property of a teacher that cannot be checked on this machine."""
    configs = {trial.config.teacher for trial in launch.grid.trials}
    sentences = [teachers.unchecked(str(config.name)) for config in configs if config.acts]
    return sorted({sentence for sentence in sentences if sentence})


def provide_data(launch: Launch) -> None:
    """Download missing data sets here, where there may be a network. Raises UserError."""
    from harness.data.catalog import info_of
    from harness.data.download import download

    for info in dict.fromkeys(info_of(config) for config, _ in _data(launch, downloads=True)):
        print(f"the data set {info.name} is not there, downloading it", flush=True)
        download(info, launch.run.data_root)


# --- hindrances: each yields sentences ------------------------------------------------------------


def packages(launch: Launch) -> Iterator[str]:
    """Name packages that training needs and this Python does not have.

    Jobs in a container (cluster.slurm.python) have packages of their own.
    """
    needed = ["torch", "deepspeed"] if launch.run.engine == "deepspeed" else ["torch"]
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing and not _in_container(launch):
        yield (
            f"training needs {' and '.join(missing)}, which {sys.executable} does not have: run "
            "make setup in the checkout, or install the wheel with its extra [train]"
        )


def data_files(launch: Launch) -> Iterator[str]:
    """Name data sets whose images this run cannot read here, and cannot download."""
    for _, problem in _data(launch, downloads=False):
        yield problem


def tracker_package(launch: Launch) -> Iterator[str]:
    """Name the package of the tracker where it is missing."""
    from harness.train import trackers

    sentence = trackers.missing(launch.run.tracker)
    if sentence is not None and not _in_container(launch):
        yield sentence


def scheduler_commands(launch: Launch) -> Iterator[str]:
    """Name commands of SLURM that this machine does not have."""
    missing = [name for name in ("sbatch", "srun", "squeue") if shutil.which(name) is None]
    if launch.cluster.executor == "slurm" and missing:
        yield (
            f"cluster={launch.cluster.name} needs SLURM and {', '.join(missing)} is not installed "
            "here: launch from a login node, or with cluster=local"
        )


def gpus_of_this_machine(launch: Launch) -> Iterator[str]:
    """Say where workers of this machine are to get GPUs that it does not have, or that are hidden.

    torch counts the GPUs, and is imported only for workers that are to get some.
    """
    cluster = launch.cluster
    if cluster.executor != "local":
        return
    if not cluster.gpus_per_node:
        if launch.run.device == "cuda":
            yield (
                f"run.device=cuda and workers of cluster={cluster.name} see no GPU without "
                "cluster.gpus_per_node=N: set it, or run.device=cpu"
            )
        return
    from harness.cluster.local import assign_gpus

    try:
        assign_gpus(cluster, launch.run.processes)
        from torch.cuda import device_count
    except UserError as error:
        yield str(error)
        return
    except ImportError:
        return  # `packages` yields it
    if device_count() < cluster.gpus_per_node and launch.run.device != "cpu":
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        among = "" if visible is None else f" with CUDA_VISIBLE_DEVICES={visible}"
        yield (
            f"cluster.gpus_per_node={cluster.gpus_per_node} and torch finds {device_count()} GPUs "
            f"on this machine{among}: set as many, or cluster.gpus_per_node=0 to train on its CPU"
        )


def linked_sweeps(launch: Launch) -> Iterator[str]:
    """Refuse a store whose `sweeps` is a link, where the next launch would not find the jobs."""
    folder = Store(launch.store).root / "sweeps"
    is_elsewhere = folder.resolve() != folder.parent.resolve() / folder.name
    if launch.cluster.executor == "slurm" and is_elsewhere:
        yield (
            f"{folder} is a link to another place, where the next launch would not look for what "
            "this one has queued: move the whole store there (store=PATH)"
        )


HINDRANCES: tuple[Callable[[Launch], Iterator[str]], ...] = (
    packages,
    data_files,
    tracker_package,
    scheduler_commands,
    gpus_of_this_machine,
    linked_sweeps,
)


def _in_container(launch: Launch) -> bool:
    return launch.cluster.slurm.python is not None


def data_sets(
    launch: Launch, find_trouble: Callable[[], str | None]
) -> Iterator[tuple[DatasetConfig, str | None, bool]]:
    """Yield each data set, why this run cannot read it or None, and whether a launch downloads it.

    The reason is the one that a worker would give. `find_trouble` says why FFCV cannot be used.
    """
    from harness.data.catalog import info_of, missing
    from harness.data.source import problem

    run = launch.run
    can_download = importlib.util.find_spec("torchvision") is not None
    for config in sorted({trial.config.dataset for trial in launch.grid.trials}, key=str):
        info = info_of(config)
        sentence = problem(config, run.data_root, run.loader, find_trouble)
        is_missing = sentence is not None and sentence == missing(info, run.data_root)
        yield config, sentence, can_download and is_missing and info.torchvision is not None


def _data(launch: Launch, downloads: bool) -> Iterator[tuple[DatasetConfig, str]]:
    """Yield the data sets that this run cannot read: those to be downloaded, or the others."""
    from harness.data.source import ffcv_absent

    # in a container FFCV may be installed although it is not installed here
    find_trouble = (lambda: None) if _in_container(launch) else ffcv_absent
    for config, sentence, is_downloaded in data_sets(launch, find_trouble):
        if sentence and downloads == is_downloaded:
            yield config, sentence

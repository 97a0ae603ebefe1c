"""python -m harness.doctor [grid=NAME] [cluster=NAME] [key=value ...]

Look for what would keep a sweep from running: on this machine, in the cluster, data and store.

    python -m harness.doctor                                   # this machine
    python -m harness.doctor grid=quickstart cluster=generic   # all that the sweep needs
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from harness.cluster import slurm
from harness.cluster.decision import job_settings
from harness.cluster.slurm import SlurmDown
from harness.cluster_schema import ClusterConfig
from harness.commands.preflight import (
    data_sets,
    gpus_of_this_machine,
    layer_mistakes,
    linked_sweeps,
    scheduler_commands,
    tracker_package,
)
from harness.config import Launch, load
from harness.config.checks import check_launch
from harness.errors import UserError
from harness.files import Damaged
from harness.run_schema import RunConfig
from harness.store.claims import STALE_SECONDS
from harness.store.records import DIGEST
from harness.store.store import CORRECT_DIGEST, Store
from harness.sweep.jobs import apply_rule
from harness.sweep.plan import make_plan

PACKAGES = ("torch", "torchvision", "timm", "deepspeed", "submitit", "numpy")
MOST_FILES = 5  # at most so many problems of a data set's image files are printed
FREE_GB = 5.0  # below it, free space is worth a note


Finding = tuple[str, str, str]
"""The level, the subject and the detail: "ok", "note", or "bad" for what would stop a sweep."""


def main(args: list[str]) -> int:
    """Print the findings; return the exit code, 1 if one of them would stop a sweep."""
    has_grid = any(arg.startswith("grid=") for arg in args)
    launch = load(args if has_grid else [*args, "grid=quickstart"])
    bad = 0
    for check in (machine, models, cluster, data, store):
        print(check.__name__)
        for level, subject, detail in check(launch):
            bad += level == "bad"
            print(f"  {level:<4}  {subject}: {detail}")
    print("nothing stands in the way" if not bad else f"{bad} finding(s) would stop a sweep")
    return 1 if bad else 0


def machine(_: Launch) -> Iterator[Finding]:
    """Check Python, packages, cores and GPUs of this machine."""
    version = ".".join(map(str, sys.version_info[:3]))
    if (3, 11) <= sys.version_info < (3, 14):
        yield "ok", "Python", version
    else:
        yield "bad", "Python", f"{version}; 3.11 to 3.13 needed"
    for name in PACKAGES:
        if importlib.util.find_spec(name) is None:
            yield "bad", name, "not installed: make setup"
        else:
            yield "ok", name, importlib.metadata.version(name)
    if (trouble := _ffcv_trouble()) is not None:
        yield (
            "note",
            "ffcv",
            f"{trouble}; run.loader=auto reads image files instead, run.loader=ffcv would fail",
        )
    if importlib.util.find_spec("numba") is None:
        yield "note", "numba", "not installed: augmentation is slower"
    yield "ok", "CPU cores", str(len(os.sched_getaffinity(0)))
    try:
        gpus = slurm.call("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader")
        yield "ok", "GPU", "; ".join(gpus.split("\n")).strip("; ")
    except FileNotFoundError:
        yield "note", "GPU", "no nvidia-smi here: CPU training only, or GPUs on the nodes"
    except (RuntimeError, SlurmDown) as error:
        yield "bad", "GPU", f"nvidia-smi fails ({error}): check the driver"


def models(launch: Launch) -> Iterator[Finding]:
    """Check that the models of the grid take their images, and can be pruned as it says."""
    plan = make_plan(launch.grid)
    mistakes, notes = layer_mistakes(launch, plan, plan.stages)
    for place, sentence in mistakes:
        yield "bad", place, sentence
    for note in notes:
        yield "note", "layers", note
    if not mistakes and not notes:
        yield "ok", launch.grid.name, "models take their images and can be pruned as the grid says"


def cluster(launch: Launch) -> Iterator[Finding]:
    """Check the cluster profile, and whether SLURM would take its jobs."""
    for mistake in check_launch(launch, trains=True):
        yield "bad", *mistake
    for check in (gpus_of_this_machine, linked_sweeps, scheduler_commands, tracker_package):
        for sentence in check(launch):
            yield "bad", f"profile {launch.cluster.name}", sentence
    if launch.cluster.executor == "local":
        yield from _local_workers(launch.cluster, launch.run)
        return
    if list(scheduler_commands(launch)):
        return
    settings: Mapping[str, str] = {}
    try:
        settings = slurm.site_settings()
    except FileNotFoundError:
        yield "note", "scontrol", "not installed: a stopped job submits its successor"
    except (SlurmDown, RuntimeError) as error:
        yield "bad", "controller", f"does not answer ({error}): ask the site, or check SLURM_CONF"
        return
    yield "ok", "SLURM", settings.get("SLURM_VERSION", "answers")
    yield from _accepted_jobs(launch)
    profile = launch.cluster.slurm
    if settings.get("JobRequeue") == "0" and profile.requeue:
        yield (
            "note",
            "requeueing",
            "off by default: if SLURM refuses jobs, set cluster.slurm.requeue=false",
        )
    if settings.get("PreemptMode", "OFF") != "OFF":
        has_signal = "preempt_send_user_signal" in str(settings)
        warning = "their signal" if has_signal else "SIGTERM, as long as the partition's GraceTime"
        yield "ok", "preemption", f"jobs are warned by {warning}"
    if slurm.elapsed_seconds(["1"]) is None:
        yield "note", "accounting", "sacct does not answer: status shows no elapsed hours"
    else:
        yield "ok", "accounting", "sacct answers"
    if profile.signal_seconds * 2 > launch.cluster.timeout_min * 60:
        yield (
            "bad",
            "signal_seconds",
            "more than half of timeout_min, so jobs would stop before half of it",
        )


def _local_workers(profile: ClusterConfig, run: RunConfig) -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0))
    threads = profile.workers * run.processes * run.threads
    level, advice = ("ok", "") if threads <= cores else ("note", ": fewer are faster")
    yield level, "local workers", f"{threads} busy threads on {cores} cores{advice}"
    if not profile.gpus_per_node and shutil.which("nvidia-smi") is not None:
        yield "note", "local GPUs", "workers do not use them: set cluster.gpus_per_node=N"


def _accepted_jobs(launch: Launch) -> Iterator[Finding]:
    """Check whether SLURM would take jobs of the profile, and of each of its rules for sizes."""
    from harness.cluster.sbatch import check  # needs submitit, which may be what is missing

    profile = f"profile {launch.cluster.name}"
    kinds = [(profile, apply_rule(launch.cluster, launch.run, None))]
    for rule in launch.cluster.resources:
        kinds.append((f"{profile}, {rule.where}", apply_rule(launch.cluster, launch.run, rule)))
    if launch.settle is not None:
        kinds.append((f"{profile}, decision of a round", job_settings(launch.cluster)))
    for subject, settings in kinds:
        try:
            check(*settings)
            yield "ok", subject, "SLURM would take its jobs"
        except UserError as error:
            yield "bad", subject, str(error)


def data(launch: Launch) -> Iterator[Finding]:
    """Check every data set of the grid, as the run would read it, and its image files."""
    from harness.data import tree_problems
    from harness.data.catalog import info_of
    from harness.data.source import choose

    run = launch.run
    results = [
        (c, problem, downloads) for c, problem, downloads in data_sets(launch, _ffcv_trouble)
    ]
    for config, sentence, is_downloaded in dict.fromkeys(results):  # without repetitions
        name = config.name
        if sentence is None:
            yield "ok", name, "there"
            source = choose(info := info_of(config), run.data_root, run.loader, _ffcv_trouble)
            if source.loader == "imagefolder" and source.folder is not None:
                yield from (
                    ("bad", name, s) for s in tree_problems(source.folder, info.places)[:MOST_FILES]
                )
        elif is_downloaded:
            yield "note", name, "not there; launch downloads it"
        else:
            yield "bad", name, sentence


def _ffcv_trouble() -> str | None:
    """Return why FFCV cannot be imported, for example because system libraries are missing."""
    from harness.data.datasets import ffcv_trouble

    return ffcv_trouble()


def store(launch: Launch) -> Iterator[Finding]:
    """Check that the store's file system does what claims and results rely on."""
    root = Store(launch.store).root
    existing = next(folder for folder in (root, *root.parents) if folder.exists())
    try:
        with tempfile.TemporaryDirectory(dir=existing, prefix=".doctor-") as scratch:
            first, second = Path(scratch) / "a", Path(scratch) / "b"
            first.write_text("x")
            skew = abs(first.stat().st_mtime - time.time())
            os.link(first, second)
            first.replace(second)
    except OSError as error:
        why = f"{error.strerror}: hard links and renames must work in {existing}"
        yield "bad", str(root), why
        return
    yield "ok", str(root), "can be written; links and renames work"
    if skew > STALE_SECONDS / 4:
        yield (
            "note",
            "clock",
            f"{skew:.0f} s away from the file system's clock, so times in logs are inexact",
        )
    free = shutil.disk_usage(existing).free / 1e9
    yield "ok" if free > FREE_GB else "note", "free space", f"{free:.0f} GB"
    if launch.cluster.executor == "slurm" and str(root).startswith(("/tmp", "/var/tmp")):
        yield "note", "place", f"{root} may not be the same folder on every node"
    yield from _results(Store(root))


def _results(store: Store) -> Iterator[Finding]:
    """Check every result of a store, and the `correct.npz` with one bit per image beside it."""
    damaged, unsealed = [], 0
    for stage in sorted(store.ids()):
        with contextlib.suppress(FileNotFoundError):
            try:
                result = store.result(stage)
                unsealed += DIGEST not in result
                if result.get(CORRECT_DIGEST) not in (None, store.correct_digest(stage)):
                    damaged.append(f"correct.npz of {stage} was changed; no table reads it")
            except Damaged as error:
                damaged.append(f"{error}; launch does it again")
    for sentence in damaged[:3]:
        yield "note", "damaged", sentence
    if unsealed:
        yield "note", "results", f"{unsealed:,} were written before results had a digest"

"""What `doctor` looks at. Each check yields findings: a subject, what was found, what to do."""

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
from typing import NamedTuple

from harness.cluster import slurm
from harness.cluster.slurm import SlurmDown
from harness.cluster_schema import ClusterConfig
from harness.config import Launch
from harness.errors import UserError
from harness.files import Damaged
from harness.schema import RunConfig
from harness.store.claims import STALE_SECONDS
from harness.store.records import DIGEST
from harness.store.store import CORRECT_DIGEST, Store
from harness.sweep.jobs import RULE_NAMES, apply_rule
from harness.sweep.where import parse

PACKAGES = ("torch", "torchvision", "timm", "deepspeed", "submitit", "numpy")
FREE_GB = 5.0  # below it, free space is worth a note


class Finding(NamedTuple):
    """One line of the doctor's output. `level` is "ok", "note", or "bad": a sweep would fail."""

    level: str
    subject: str
    detail: str


def machine() -> Iterator[Finding]:
    """Check Python, packages, cores and GPUs of this machine."""
    version = ".".join(map(str, sys.version_info[:3]))
    if (3, 11) <= sys.version_info < (3, 14):
        yield Finding("ok", "Python", version)
    else:
        yield Finding("bad", "Python", f"{version}; 3.11 to 3.13 needed")
    for name in PACKAGES:
        if importlib.util.find_spec(name) is None:
            yield Finding("bad", name, "not installed: make setup")
        else:
            yield Finding("ok", name, importlib.metadata.version(name))
    if (trouble := _ffcv_trouble()) is not None:
        yield Finding(
            "note", "ffcv", f"{trouble}; run.loader=auto reads image files, ffcv would fail"
        )
    if importlib.util.find_spec("numba") is None:
        yield Finding("note", "numba", "not installed: augmentation is slower")
    yield Finding("ok", "CPU cores", str(len(os.sched_getaffinity(0))))
    if shutil.which("nvidia-smi") is None:
        yield Finding("note", "GPU", "no nvidia-smi here: CPU training only, or GPUs on the nodes")
        return
    try:
        gpus = slurm.call("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader")
        yield Finding("ok", "GPU", "; ".join(gpus.split("\n")).strip("; "))
    except (RuntimeError, SlurmDown) as error:
        yield Finding("bad", "GPU", f"nvidia-smi fails ({error}): check the driver")


def cluster(launch: Launch) -> Iterator[Finding]:
    """Check the cluster profile, and whether SLURM would take its jobs."""
    if launch.cluster.executor == "local":
        yield from _local_workers(launch.cluster, launch.run)
        return
    missing = [name for name in ("sbatch", "srun", "squeue") if shutil.which(name) is None]
    if missing:
        detail = f"{', '.join(missing)} not installed: launch from a login node"
        yield Finding("bad", "SLURM", detail)
        return
    settings: Mapping[str, str] = {}
    try:
        settings = _slurm_settings()
    except FileNotFoundError:
        yield Finding("note", "scontrol", "not installed: a stopped job submits its successor")
    except (SlurmDown, RuntimeError) as error:
        detail = f"does not answer ({error}): ask the site, or check SLURM_CONF"
        yield Finding("bad", "controller", detail)
        return
    yield Finding("ok", "SLURM", settings.get("SLURM_VERSION", "answers"))
    yield from _accepted_jobs(launch)
    profile = launch.cluster.slurm
    if settings.get("JobRequeue") == "0" and profile.requeue:
        detail = "off by default here: if refused, cluster.slurm.requeue=false"
        yield Finding("note", "requeueing", detail)
    if settings.get("PreemptMode", "OFF") != "OFF":
        has_signal = "preempt_send_user_signal" in str(settings)
        warning = "their signal" if has_signal else "SIGTERM, as long as the partition's GraceTime"
        yield Finding("ok", "preemption", f"jobs are warned by {warning}")
    if slurm.elapsed_seconds(["1"]) is None:
        yield Finding("note", "accounting", "sacct does not answer: status shows no elapsed hours")
    else:
        yield Finding("ok", "accounting", "sacct answers")
    if profile.signal_seconds * 2 > launch.cluster.timeout_min * 60:
        detail = "more than half of timeout_min: jobs would spend their time on saving"
        yield Finding("bad", "signal_seconds", detail)


def _local_workers(profile: ClusterConfig, run: RunConfig) -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0))
    threads = profile.workers * run.processes * run.threads
    detail = f"{threads} busy threads on {cores} cores"
    if threads <= cores:
        yield Finding("ok", "local workers", detail)
    else:
        yield Finding("note", "local workers", f"{detail}: fewer workers or threads are faster")
    if not profile.gpus_per_node and shutil.which("nvidia-smi") is not None:
        yield Finding("note", "local GPUs", "workers do not use them: set cluster.gpus_per_node=N")


def _slurm_settings() -> dict[str, str]:
    """Return SLURM's configuration as `scontrol` prints it."""
    lines = slurm.call("scontrol", "show", "config").split("\n")
    pairs = [line.partition("=") for line in lines]
    return {key.strip(): value.strip() for key, _, value in pairs}


def _accepted_jobs(launch: Launch) -> Iterator[Finding]:
    """Check whether SLURM would take jobs of the profile, and of each of its rules for sizes."""
    from harness.cluster import slurm_jobs  # imports submitit, which may be what is missing

    for rule in (None, *launch.cluster.resources):
        subject = f"profile {launch.cluster.name}" + (f", {rule.where}" if rule else "")
        try:
            if rule is not None:
                parse(rule.where, RULE_NAMES)
            profile, run = apply_rule(launch.cluster, launch.run, rule)
            with tempfile.TemporaryDirectory() as folder:
                slurm_jobs.check(profile, run, Path(folder), Path(folder))
            yield Finding("ok", subject, "SLURM would take its jobs")
        except UserError as error:
            yield Finding("bad", subject, str(error))


def data(launch: Launch) -> Iterator[Finding]:
    """Check every data set of the grid, as the run would read it."""
    from harness.data.catalog import CATALOG, missing
    from harness.data.source import problem

    run = launch.run
    problems: dict[tuple[str, str | None], None] = {}  # each once, in order
    for config in sorted({trial.config.dataset for trial in launch.grid.trials}, key=str):
        problems[config.name, problem(config, run.data_root, run.loader, _ffcv_trouble)] = None
    for name, sentence in problems:
        info = CATALOG[name]
        if sentence is None:
            yield Finding("ok", name, "there")
        elif info.torchvision is not None and sentence == missing(info, run.data_root):
            yield Finding("note", name, "not there; launch downloads it")
        else:
            yield Finding("bad", name, sentence)


def _ffcv_trouble() -> str | None:
    """Return why FFCV cannot be used: it is imported, since missing system libraries show then."""
    from harness.data.datasets import ffcv_trouble

    return ffcv_trouble()


def store(launch: Launch) -> Iterator[Finding]:
    """Check that the store's file system does what claims and results rely on."""
    root = Store(launch.store).root
    existing = root
    while not existing.exists():
        existing = existing.parent
    try:
        with tempfile.TemporaryDirectory(dir=existing, prefix=".doctor-") as scratch:
            first, second = Path(scratch) / "a", Path(scratch) / "b"
            first.write_text("x")
            skew = abs(first.stat().st_mtime - time.time())
            os.link(first, second)
            first.replace(second)
    except OSError as error:
        detail = f"{error.strerror}: hard links and renames must work in {existing}"
        yield Finding("bad", str(root), detail)
        return
    yield Finding("ok", str(root), "can be written; links and renames work")
    if skew > STALE_SECONDS / 4:
        detail = f"{skew:.0f} s off the file system's: claims still work, times in logs mislead"
        yield Finding("note", "clock", detail)
    free = shutil.disk_usage(existing).free / 1e9
    yield Finding("ok" if free > FREE_GB else "note", "free space", f"{free:.0f} GB")
    if launch.cluster.executor == "slurm" and str(root).startswith(("/tmp", "/var/tmp")):
        yield Finding("note", "place", f"{root} may not be the same folder on every node")
    yield from _results(Store(root))


def _results(store: Store) -> Iterator[Finding]:
    """Check every result of a store, and the bits per example beside it."""
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
        yield Finding("note", "damaged", sentence)
    if unsealed:
        detail = f"{unsealed:,} were written before results had a digest: changes cannot be found"
        yield Finding("note", "results", detail)

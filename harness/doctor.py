"""What would keep a sweep from running: this machine, the cluster, the data, the store.

python -m harness.doctor                                   # this machine
python -m harness.doctor grid=quickstart cluster=generic   # all that the sweep needs
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from harness.cluster import slurm
from harness.cluster.slurm import SlurmDown
from harness.config import Launch, load
from harness.errors import UserError, command
from harness.store.claims import STALE_SECONDS
from harness.store.store import Store

Finding = tuple[str, str, str]  # "ok", "note" or "bad"; what was looked at; what is so, and to do
NEEDED = ("torch", "torchvision", "timm", "deepspeed", "submitit", "numpy")
FREE_GB = 5.0


def main(args: list[str]) -> int:
    """The command; 1 where something would fail."""
    launch = load(args if any(a.startswith("grid=") for a in args) else [*args, "grid=quickstart"])
    rooms: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ("machine", machine),
        ("cluster", lambda: cluster(launch)),
        ("data", lambda: data(launch)),
        ("store", lambda: store(launch)),
    ]
    bad = 0
    for room, look in rooms:
        print(room)
        for state, what, why in look():
            bad += state == "bad"
            print(f"  {state:<4}  {what}: {why}")
    print("nothing stands in the way" if not bad else f"{bad} finding(s) would stop a sweep")
    return 1 if bad else 0


def machine() -> Iterator[Finding]:
    """Python, packages, cores, GPUs."""
    version = ".".join(map(str, sys.version_info[:3]))
    fits = (3, 11) <= sys.version_info < (3, 14)
    yield "ok" if fits else "bad", "Python", version if fits else f"{version}; 3.11 to 3.13 needed"
    for name in NEEDED:
        if importlib.util.find_spec(name) is None:
            yield "bad", name, "not installed: make setup"
        else:
            yield "ok", name, importlib.metadata.version(name)
    if (trouble := _ffcv_trouble()) is not None:
        yield "note", "ffcv", f"{trouble}; run.loader=auto reads image files, ffcv would fail"
    if importlib.util.find_spec("numba") is None:
        yield "note", "numba", "not installed: augmentation is slower"
    yield "ok", "CPU cores", str(len(os.sched_getaffinity(0)))
    if shutil.which("nvidia-smi") is None:
        yield "note", "GPU", "no nvidia-smi here: CPU training only, or GPUs on the nodes"
        return
    try:
        listed = slurm.call("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader")
        yield "ok", "GPU", "; ".join(listed.split("\n")).strip("; ")
    except (RuntimeError, SlurmDown) as error:
        yield "bad", "GPU", f"nvidia-smi fails ({error}): the driver needs a look"


def cluster(launch: Launch) -> Iterator[Finding]:
    """The profile, and whether SLURM would take its jobs."""
    asked = launch.cluster
    if asked.executor == "local":
        cores = len(os.sched_getaffinity(0))
        wanted = asked.workers * launch.run.processes * launch.run.threads
        fits = wanted <= cores
        said = f"{wanted} busy threads on {cores} cores"
        yield (
            "ok" if fits else "note",
            "local workers",
            said + ("" if fits else ": fewer is faster"),
        )
        if not asked.gpus_per_node and shutil.which("nvidia-smi") is not None:
            yield "note", "local GPUs", "workers see none: say cluster.gpus_per_node=N"
        return
    absent = [name for name in ("sbatch", "srun", "squeue") if shutil.which(name) is None]
    if absent:
        yield "bad", "SLURM", f"{', '.join(absent)} not installed: launch from a login node"
        return
    try:
        lines = slurm.call("scontrol", "show", "config").split("\n")
        pairs = [line.partition("=") for line in lines]
        settings = {key.strip(): value.strip() for key, _, value in pairs}
    except FileNotFoundError:
        settings = {}
        yield "note", "scontrol", "not installed: a stopped job submits its successor"
    except (SlurmDown, RuntimeError) as error:
        yield "bad", "controller", f"does not answer ({error}): ask the site, or check SLURM_CONF"
        return
    yield "ok", "SLURM", settings.get("SLURM_VERSION", "answers")
    yield from _accepted(launch)
    if settings.get("JobRequeue") == "0" and asked.slurm.requeue:
        yield (
            "note",
            "requeueing",
            "off by default here: if refused, cluster.slurm.requeue=false",
        )
    yield from _preemption(settings)
    if slurm.elapsed(["1"]) is None:
        yield "note", "accounting", "sacct does not answer: status shows no elapsed hours"
    else:
        yield "ok", "accounting", "sacct answers"
    if asked.slurm.signal_seconds * 2 > asked.timeout_min * 60:
        yield "bad", "signal_seconds", "more than half of timeout_min: jobs would only ever save"


def _accepted(launch: Launch) -> Iterator[Finding]:
    """Whether SLURM would take jobs of the profile as it is, and with each rule for sizes."""
    from harness.cluster import slurm_jobs as arrays
    from harness.sweep.jobs import RULE_NAMES, applied
    from harness.sweep.where import parse

    for rule in (None, *launch.cluster.resources):
        what = f"profile {launch.cluster.name}" + (f", {rule.where}" if rule else "")
        try:
            if rule is not None:
                parse(rule.where, RULE_NAMES)
            asked, run = applied(launch.cluster, launch.run, rule)
            with tempfile.TemporaryDirectory() as folder:
                arrays.check(asked, run, Path(folder), Path(folder))
            yield "ok", what, "SLURM would take its jobs"
        except UserError as error:
            yield "bad", what, str(error)


def _preemption(settings: dict[str, str]) -> Iterator[Finding]:
    if settings.get("PreemptMode", "OFF") == "OFF":
        return
    if "preempt_send_user_signal" in str(settings):
        yield "ok", "preemption", "jobs are warned by their signal"
    else:
        yield "ok", "preemption", "jobs are warned by SIGTERM, as long as the partition's GraceTime"


def data(launch: Launch) -> Iterator[Finding]:
    """Every data set of the grid, as the run would read it."""
    from harness.data.catalog import CATALOG, missing
    from harness.data.source import problem

    run = launch.run
    found: dict[tuple[str, str | None], None] = {}
    for config in sorted({trial.config.dataset for trial in launch.grid.trials}, key=str):
        found[config.name, problem(config, run.data_root, run.loader, _ffcv_trouble)] = None
    for name, said in found:
        info = CATALOG[name]
        if said is None:
            yield "ok", name, "there"
        elif info.torchvision is not None and said == missing(info, run.data_root):
            yield "note", name, "not there; launch downloads it"
        else:
            yield "bad", name, said


def _ffcv_trouble() -> str | None:
    """Imported, because what it needs of the system shows only then."""
    from harness.data.datasets import ffcv_trouble

    return ffcv_trouble()


def store(launch: Launch) -> Iterator[Finding]:
    """Whether the store's file system does what claims and results rest on."""
    root = Store(launch.store).root
    place = root
    while not place.exists():
        place = place.parent
    try:
        with tempfile.TemporaryDirectory(dir=place, prefix=".doctor-") as scratch:
            first, second = Path(scratch) / "a", Path(scratch) / "b"
            first.write_text("x")
            skew = abs(first.stat().st_mtime - time.time())
            os.link(first, second)
            first.replace(second)
    except OSError as error:
        yield "bad", str(root), f"{error.strerror}: hard links and renames must work in {place}"
        return
    yield "ok", str(root), "can be written; links and renames work"
    if skew > STALE_SECONDS / 4:
        yield (
            "note",
            "clock",
            f"{skew:.0f} s off the file system's: claims do not mind, logs mislead",
        )
    free = shutil.disk_usage(place).free / 1e9
    yield "ok" if free > FREE_GB else "note", "free space", f"{free:.0f} GB"
    shared = launch.cluster.executor == "slurm" and str(root).startswith(("/tmp", "/var/tmp"))
    if shared:
        yield "note", "place", f"{root} may not be the same folder on every node"
    damaged = Store(root).results(Store(root).ids())[1]
    for sentence in list(damaged.values())[:3]:
        yield "note", "damaged", f"{sentence}; launch does it again"


if __name__ == "__main__":
    command(main, __doc__, needs_arguments=False)

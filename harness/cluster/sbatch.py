"""The options of sbatch that a profile sets, and whether SLURM would accept such a job."""

from __future__ import annotations

import contextlib
import os
import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from submitit.helpers import clean_env

from harness.cluster import slurm
from harness.cluster.slurm import PartitionLimits, SlurmDown
from harness.cluster_schema import ClusterConfig
from harness.errors import UserError
from harness.run_schema import RunConfig

UNSURE = "Requested node configuration is not available"
HOLDING = ("begin", "hold")  # options with which SLURM checks nothing at submission
SITE_VARIABLES = ("SLURM_CONF", "SLURM_JWT", "SLURM_CLUSTERS")
PROBE_SECONDS = 15.0
"""How long SLURM may take to say why a job waits: by default it looks for the first time after 3 s
(`batch_sched_delay`)."""
UNDECIDED = ("None", "ReqNodeNotAvail")
"""Reasons, by how they begin, that SLURM shows before it has looked at all limits of a job."""
CHOICES = ("partition", "account", "qos", "constraint")


def sbatch_options(cluster: ClusterConfig) -> dict[str, str | int]:
    """Return the options of sbatch that a profile sets, each once; True is one without a value.

    The number of nodes and tasks, the time limit and the files are submitit's.
    """
    profile = cluster.slurm
    gpus: str | int | None = cluster.gpus_per_node or None
    if gpus and profile.gpu_type:
        gpus = f"{profile.gpu_type}:{gpus}"
    options = {
        "partition": profile.partition,
        "account": profile.account,
        "qos": profile.qos,
        "constraint": profile.constraint,
        "mem": f"{max(1, int(profile.mem_gb * 1024))}M" if profile.mem_gb else None,
        "gpus-per-node": gpus,
        "cpus-per-task": profile.cpus_per_task,
        "signal": f"USR2@{profile.signal_seconds}",
        "requeue" if profile.requeue else "no-requeue": True,
        **profile.extra,
    }
    return {k: v for k, v in options.items() if v is not None and v is not False}


def job_options(cluster: ClusterConfig, run: RunConfig) -> list[str]:
    """Return all options of sbatch that decide what a job asks for, as in its script."""
    options = {
        **sbatch_options(cluster),
        "nodes": cluster.slurm.nodes,
        "ntasks-per-node": run.processes // cluster.slurm.nodes,
        "time": cluster.timeout_min,
    }
    return [
        f"--{key}" + ("" if value is True else f"={shlex.quote(str(value))}")
        for key, value in options.items()
    ]


@contextlib.contextmanager
def as_from_login_node(cluster: ClusterConfig) -> Iterator[None]:
    """Run without the variables of a surrounding job, which sbatch reads as options.

    The user's `SBATCH_*` variables go, too, because they are stronger than a profile
    (`SBATCH_JOB_NAME` would hide jobs from the next launch). Those of partition, account, qos and
    constraint stay where the profile leaves the choice open.
    """
    open_choices = [f"SBATCH_{key.upper()}" for key in CHOICES if not getattr(cluster.slurm, key)]
    kept = {k: os.environ[k] for k in (*SITE_VARIABLES, *open_choices) if k in os.environ}
    with clean_env():
        os.environ.update(kept)
        yield


def check_jobs(
    jobs: Iterable[tuple[ClusterConfig, RunConfig]], heartbeat: Callable[[], None] = lambda: None
) -> None:
    """Ask SLURM whether it would accept each kind of these jobs; nothing is written.

    Raises UserError with SLURM's own reason.
    """
    kinds = list(jobs)
    kinds = [kind for number, kind in enumerate(kinds) if kind not in kinds[:number]]
    limits: Sequence[PartitionLimits] = ()
    with contextlib.suppress(FileNotFoundError, RuntimeError):
        limits = slurm.until_up(slurm.partitions, heartbeat) if kinds else ()
    for kind in kinds:
        check(*kind, limits, heartbeat)


def check(
    cluster: ClusterConfig,
    run: RunConfig,
    limits: Sequence[PartitionLimits] = (),
    heartbeat: Callable[[], None] = lambda: None,
) -> None:
    """Ask SLURM whether it would accept such a job (`sbatch --test-only`); nothing is written.

    That is not enough where SLURM accepts a job that it never starts, because `EnforcePartLimits`
    is off. So a job that is beyond the `limits` of its partition is submitted, its reason for
    waiting is read, and it is cancelled. If it starts, it runs `true`. SLURM itself decides,
    because a quality of service may lift the limits of a partition.

    Raises UserError with SLURM's own reason. Limits on the number of jobs show only at submission.
    """
    options = [
        option
        for option in job_options(cluster, run)
        if option.removeprefix("--").partition("=")[0] not in HOLDING
    ]
    lines = [f"#SBATCH {o}" for o in (*options, "--job-name=check", "--output=/dev/null")]
    script = "\n".join(["#!/bin/bash", *lines, "true", ""])

    def sbatch(option: str) -> str:
        return slurm.until_up(lambda: slurm.call("sbatch", option, stdin=script), heartbeat)

    try:
        with as_from_login_node(cluster):
            doubt = _describe_excess(cluster, limits)
            try:
                sbatch("--test-only")
            except RuntimeError as error:
                if UNSURE not in str(error):
                    raise
                doubt = doubt or str(error)  # SLURM says this of nodes that are down, too
            if doubt and slurm.never_starts(reason := _reason_to_wait(sbatch("--parsable"))):
                raise RuntimeError(f"{doubt} ({reason})")
    except RuntimeError as error:
        reason = str(error).removeprefix("sbatch: ").replace("sbatch: error: ", "")
        raise UserError(
            f"SLURM would not accept jobs of cluster={cluster.name}: {reason}. Correct the "
            "profile, or set a key on the command line, such as cluster.slurm.partition=NAME; "
            "nothing was queued"
        ) from error


def _describe_excess(cluster: ClusterConfig, limits: Sequence[PartitionLimits]) -> str:
    """Return which limit a job exceeds in every partition that it may run in, or ''."""
    names = (cluster.slurm.partition or os.environ.get("SBATCH_PARTITION", "")).split(",")
    sentences = []
    for limit in limits:
        if limit.name not in names and not (names == [""] and limit.is_default):
            continue
        memory = cluster.slurm.mem_gb
        if limit.minutes is not None and cluster.timeout_min > limit.minutes:
            sentences.append(
                f"partition {limit.name} allows jobs of {limit.minutes:g} minutes, and "
                f"cluster.timeout_min is {cluster.timeout_min}"
            )
        elif limit.megabytes is not None and memory and memory * 1024 > limit.megabytes:
            sentences.append(
                f"partition {limit.name} allows {limit.megabytes / 1024:.1f} GB of memory on a "
                f"node, and cluster.slurm.mem_gb is {memory:g}"
            )
        else:
            return ""
    return "; ".join(sentences)


def _reason_to_wait(submitted: str) -> str:
    """Return SLURM's reason for which a job waits, and cancel the job.

    `submitted`: what `sbatch --parsable` printed. Returns '' where the job waits for nothing, or
    where SLURM does not say within `PROBE_SECONDS` why it waits.
    """
    job = submitted.strip().partition(";")[0]
    deadline = time.monotonic() + PROBE_SECONDS
    state = reason = ""
    try:
        with contextlib.suppress(SlurmDown, RuntimeError):  # squeue may not know an ended job
            while time.monotonic() < deadline:
                entry = slurm.call("squeue", "--noheader", "--format=%T|%r", "--jobs", job)
                state, _, reason = entry.strip().partition("|")
                if state != "PENDING" or not reason.startswith(UNDECIDED):
                    break
                time.sleep(0.5)
    finally:
        with contextlib.suppress(SlurmDown, RuntimeError):
            slurm.call("scancel", job)
    return reason if state == "PENDING" else ""

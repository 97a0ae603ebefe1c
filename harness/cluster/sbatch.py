"""The options of sbatch that a profile sets, and whether SLURM would accept such a job."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Callable, Iterable, Iterator

from submitit.helpers import clean_env

from harness.cluster import slurm
from harness.cluster.slurm import SlurmDown
from harness.cluster_schema import ClusterConfig
from harness.errors import UserError
from harness.run_schema import RunConfig

UNSURE = "Requested node configuration is not available"
HOLDING = ("begin", "hold")  # options with which SLURM checks nothing at submission
SITE_VARIABLES = ("SLURM_CONF", "SLURM_JWT", "SLURM_CLUSTERS")
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
    kinds = []
    for kind in jobs:
        if kind not in kinds:
            kinds.append(kind)
            check(*kind, heartbeat)


def check(
    cluster: ClusterConfig, run: RunConfig, heartbeat: Callable[[], None] = lambda: None
) -> None:
    """Ask SLURM whether it would accept such a job (`sbatch --test-only`); nothing is written.

    Raises UserError with SLURM's own reason. Limits on the number of jobs show only at submission.
    """
    options = {
        **{k: v for k, v in sbatch_options(cluster).items() if k not in HOLDING},
        "nodes": cluster.slurm.nodes,
        "ntasks-per-node": run.processes // cluster.slurm.nodes,
        "time": cluster.timeout_min,
        "job-name": "check",
        "output": "/dev/null",
    }
    lines = [
        f"#SBATCH --{k}" + ("" if v is True else f"={shlex.quote(str(v))}")
        for k, v in options.items()
    ]
    script = "\n".join(["#!/bin/bash", *lines, "true", ""])

    def sbatch(option: str) -> str:
        return slurm.until_up(lambda: slurm.call("sbatch", option, stdin=script), heartbeat)

    try:
        with as_from_login_node(cluster):
            try:
                sbatch("--test-only")
            except RuntimeError as error:
                if UNSURE not in str(error):
                    raise
                # SLURM says this of nodes that are temporarily down, too. A real submission tells
                # the two apart; if its job starts, it runs `true`.
                job = sbatch("--parsable").strip().partition(";")[0]
                with contextlib.suppress(SlurmDown):
                    why = slurm.call("squeue", "--noheader", "--format=%r", "--jobs", job).strip()
                    slurm.call("scancel", job)
                    # with EnforcePartLimits off, SLURM accepts a job that cannot start
                    if slurm.never_starts(why):
                        raise RuntimeError(f"{error} ({why})") from error
    except RuntimeError as error:
        reason = str(error).removeprefix("sbatch: ").replace("sbatch: error: ", "")
        raise UserError(
            f"SLURM would not accept jobs of cluster={cluster.name}: {reason}. Correct the "
            "profile, or set a key on the command line, such as cluster.slurm.partition=NAME; "
            "nothing was queued"
        ) from error

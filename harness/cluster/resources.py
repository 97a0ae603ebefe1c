"""What the workers and jobs of a launch ask for: options of sbatch, GPUs, and contradictions.

Launch and dry run list the same `problems`. These need neither submitit nor, without GPUs, torch.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cluster import slurm
from harness.cluster.slurm import SlurmDown
from harness.cluster_schema import ClusterConfig
from harness.errors import UserError
from harness.schema import RunConfig
from harness.sweep.jobs import resources_for

if TYPE_CHECKING:
    from harness.config import Launch
    from harness.sweep.plan import Plan

COMMANDS = ("sbatch", "srun", "squeue")
FORBIDDEN = ":%\\\n"  # in a path that goes into PYTHONPATH, and in which SLURM expands %j
GPU_OPTIONS = ("gres", "gpus", "gpus-per-task", "gpus-per-socket", "tres-per-node")
UNSURE = "Requested node configuration is not available"
HOLDING = ("begin", "hold")  # options with which SLURM checks nothing at submission
SITE_VARIABLES = ("SLURM_CONF", "SLURM_JWT", "SLURM_CLUSTERS")
CHOICES = ("partition", "account", "qos", "constraint")


def problems(launch: Launch, plan: Plan) -> list[str]:
    """Return a sentence for each demand of a launch that its workers or jobs would refuse.

    SLURM itself is not asked: `check_jobs` does that.
    """
    cluster, run = launch.cluster, launch.run
    if cluster.executor == "local":
        return local_problems(cluster, run)
    sentences = store_problems(launch.store)
    for job_cluster, job_run in _kinds_of_jobs(launch, plan):
        sentences += job_problems(job_cluster, job_run)
    return list(dict.fromkeys(sentences))


def check_jobs(launch: Launch, plan: Plan) -> None:
    """Ask SLURM whether it would accept each kind of job of a launch; nothing is queued or written.

    Raises UserError with SLURM's own reason.
    """
    if launch.cluster.executor == "slurm":
        for job_cluster, job_run in _kinds_of_jobs(launch, plan):
            check(job_cluster, job_run)


def _kinds_of_jobs(launch: Launch, plan: Plan) -> Iterator[tuple[ClusterConfig, RunConfig]]:
    """Yield profile and run settings for each size of the grid, each once."""
    dense_stages = {
        (config.dataset.name, str(config.model), config.recipe.batch_size, config.recipe.epochs): id
        for id, config in plan.stages.items()
        if config.parent is None
    }
    kinds: list[tuple[ClusterConfig, RunConfig]] = []
    for stage in dense_stages.values():
        kind = resources_for(plan, stage, launch.cluster, launch.run)
        if kind not in kinds:
            kinds.append(kind)
            yield kind


def store_problems(store: Path) -> list[str]:
    """Return why SLURM's jobs could not work in a store."""
    sentences = []
    if forbidden := set(FORBIDDEN) & set(str(store.absolute())):
        sentences.append(
            f"the store {store} has {' '.join(map(repr, sorted(forbidden)))} in its path, which "
            "SLURM or PYTHONPATH changes: choose another with store=PATH"
        )
    sweeps = store / "sweeps"
    if sweeps.resolve() != store.resolve() / "sweeps":
        sentences.append(
            f"{sweeps} is a link to another place, where the next launch would not look for what "
            "this one has queued: move the whole store there (store=PATH)"
        )
    return sentences


def missing_commands(cluster: ClusterConfig) -> str | None:
    """Return a sentence on a machine from which jobs of the profile cannot be submitted."""
    missing = [name for name in COMMANDS if shutil.which(name) is None]
    if cluster.executor == "local" or not missing:
        return None
    return (
        f"cluster={cluster.name} needs SLURM and {', '.join(missing)} is not installed here: "
        "launch from a login node, or with cluster=local"
    )


def job_problems(cluster: ClusterConfig, run: RunConfig) -> list[str]:
    """Return the contradictions in what a job of this profile would ask for."""
    profile, gpus = cluster.slurm, cluster.gpus_per_node
    sentences = []
    tasks, rest = divmod(run.processes, profile.nodes)
    if rest:
        sentences.append(
            f"run.processes={run.processes} cannot be shared equally by cluster.slurm.nodes="
            f"{profile.nodes}: make it a multiple"
        )
    elif gpus and tasks != gpus:
        sentences.append(
            f"run.processes={run.processes} on {profile.nodes} node(s) are {tasks} rank(s) for "
            f"cluster.gpus_per_node={gpus}, and each rank uses one GPU: set "
            f"run.processes={profile.nodes * gpus} or cluster.gpus_per_node={tasks}"
        )
    if profile.gpu_type and not gpus:
        sentences.append(
            f"cluster.slurm.gpu_type={profile.gpu_type} and cluster.gpus_per_node=0: set the "
            "number of GPUs, or leave the type out"
        )
    if gpus and (twice := sorted(set(GPU_OPTIONS) & set(profile.extra))):
        sentences.append(
            f"cluster.slurm.extra has {', '.join(twice)} and cluster.gpus_per_node={gpus}: ask for "
            "GPUs once, with gpus_per_node and cluster.slurm.gpu_type"
        )
    if profile.signal_seconds >= cluster.timeout_min * 60:
        sentences.append(
            f"cluster.slurm.signal_seconds={profile.signal_seconds} is not less than the time "
            f"limit of {cluster.timeout_min} minutes: jobs would only ever save"
        )
    return sentences


def local_problems(cluster: ClusterConfig, run: RunConfig) -> list[str]:
    """Return why workers of this machine would not get the GPUs that they are to use."""
    gpus = cluster.gpus_per_node
    if not gpus:
        if run.device != "cuda":
            return []
        return ["run.device=cuda and cluster.gpus_per_node=0: set cluster.gpus_per_node=N"]
    try:
        assign_gpus(cluster, run.processes)
    except UserError as error:
        return [str(error)]
    if run.device == "cpu":
        return []
    if run.processes > gpus:
        return [
            f"run.processes={run.processes} ranks need a GPU each and cluster.gpus_per_node={gpus}:"
            f" set run.processes={gpus}, or run.device=cpu"
        ]
    if importlib.util.find_spec("torch") is None:
        return []
    import torch

    present = torch.cuda.device_count()
    if present >= gpus:
        return []
    return [
        f"cluster.gpus_per_node={gpus} and torch finds {present} GPUs on this machine: set "
        f"cluster.gpus_per_node={present}{'' if present else ' to train on its CPU'}"
    ]


def assign_gpus(cluster: ClusterConfig, processes: int) -> list[tuple[int, ...]]:
    """Return the numbers of the GPUs that each worker of this machine sees.

    The first `cluster.gpus_per_node` GPUs of CUDA_VISIBLE_DEVICES are assigned. If there are enough
    for all workers, each gets its own. Raises UserError if CUDA_VISIBLE_DEVICES lists fewer GPUs,
    or does not list numbers.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = cluster.gpus_per_node
    if visible is None:
        numbers = [str(number) for number in range(count)]
    else:
        numbers = [word.strip() for word in visible.split(",") if word.strip()]
    if not all(number.isdecimal() for number in numbers[:count]):
        raise UserError(
            f"CUDA_VISIBLE_DEVICES={visible} and cluster.gpus_per_node={count}: name GPUs by "
            "number, such as CUDA_VISIBLE_DEVICES=0,1, or leave it unset"
        )
    if len(numbers) < count:
        raise UserError(
            f"CUDA_VISIBLE_DEVICES={visible} lists {len(numbers)} GPUs, fewer than "
            f"cluster.gpus_per_node={count}: set a smaller number, or unset CUDA_VISIBLE_DEVICES"
        )
    each = min(count, max(processes, count // cluster.workers))
    return [
        tuple(int(numbers[(worker * each + i) % count]) for i in range(each))
        for worker in range(cluster.workers)
    ]


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
    from submitit.helpers import clean_env

    open_choices = [f"SBATCH_{key.upper()}" for key in CHOICES if not getattr(cluster.slurm, key)]
    kept = {k: os.environ[k] for k in (*SITE_VARIABLES, *open_choices) if k in os.environ}
    with clean_env():
        os.environ.update(kept)
        yield


def check(
    cluster: ClusterConfig, run: RunConfig, heartbeat: Callable[[], None] = lambda: None
) -> None:
    """Ask SLURM whether it would accept such a job (`sbatch --test-only`); nothing is written.

    Raises UserError with SLURM's own reason. Limits on the number of jobs show only at submission.
    """
    if sentences := job_problems(cluster, run):
        raise UserError("; ".join(sentences))
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
                    if why in slurm.NEVER:  # with EnforcePartLimits off, SLURM accepts such a job
                        raise RuntimeError(f"{error} ({why})") from error
    except RuntimeError as error:
        reason = str(error).removeprefix("sbatch: ").replace("sbatch: error: ", "")
        raise UserError(
            f"SLURM would not accept jobs of cluster={cluster.name}: {reason}. Correct the profile "
            f"slurm/cluster/{cluster.name}.yaml, or a key on the command line, such as "
            "cluster.slurm.partition=NAME; nothing was queued"
        ) from error

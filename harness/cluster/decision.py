"""The job that decides the next round of a sweep with the rule `settle`, on a cluster.

It starts when the jobs of a round have ended, queues the jobs of the next round and the next such
job. It does not read the grid file, which may be changed meanwhile, but `launch.json`: the launch
as it was when the first round was queued. In the record of jobs it has the name of its decision
(`settlement.decision_name`) in the place of the stages of other jobs.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.cluster import slurm
from harness.cluster.job_registry import read_records
from harness.cluster.settlement import decision_name
from harness.cluster.slurm import QueuedJob
from harness.cluster.sweep_view import Sweep
from harness.cluster_schema import ClusterConfig
from harness.config import Launch
from harness.files import Damaged, atomic_write
from harness.run_schema import RunConfig
from harness.schema import TrialConfig
from harness.states import FINISHED, UNDER_WAY
from harness.store.records import LONGEST, read_bytes
from harness.store.store import Store
from harness.sweep.axes import axis_path, value_at
from harness.sweep.grid import Grid, Trial
from harness.sweep.settle import SettleConfig

MINUTES = 30  # time limit; the controller and other launches may keep it waiting for some of them
MEMORY_GB = 4.0
LAUNCH_FILE = "launch.json"
END_FILE = "end.txt"
"""Written by a decision that ends the rounds, into the folder of its job: the reason."""


@dataclass(frozen=True)
class Decision:
    """What a decision continues: a launch, its words, and the round for whose end it waited."""

    launch: Launch
    words: list[str]
    number: int  # of the round
    unfinished: int  # stages of the round without a result when the decision was queued


def job_settings(cluster: ClusterConfig) -> tuple[ClusterConfig, RunConfig]:
    """Return the profile and run settings of a decision: one core, no GPU, and little time."""
    slurm_config = cluster.slurm
    for_gpus = {key for key in slurm_config.extra if "gpu" in key}  # such as mem-per-gpu
    left_out = {*slurm_config.gpu_options(), *for_gpus, "exclusive"}
    changes = {
        "partition": slurm_config.decision_partition or slurm_config.partition,
        "constraint": None,
        "nodes": 1,
        "cpus_per_task": 1,
        "mem_gb": slurm_config.mem_gb and min(slurm_config.mem_gb, MEMORY_GB),
        "signal_seconds": 30,
        "extra": {key: value for key, value in slurm_config.extra.items() if key not in left_out},
    }
    small = cluster.model_copy(
        update={
            "gpus_per_node": 0,
            "timeout_min": min(cluster.timeout_min, MINUTES),
            "slurm": slurm_config.model_copy(update=changes),
        }
    )
    return small, RunConfig(device="cpu")


def queued(sweep: Sweep) -> dict[str, QueuedJob]:
    """Return the jobs in SLURM's queue that decide the next round of this sweep."""
    names = {record["name"] for record in _records(sweep)}
    return {job: entry for job, entry in sweep.scheduler.jobs.items() if entry.name in names}


def is_missing(sweep: Sweep) -> bool:
    """Return whether jobs of the present round are queued, but no job that decides the next."""
    if sweep.settlement is None or sweep.launch.cluster.executor != "slurm":
        return False
    if not jobs_of_round(sweep):
        return False
    return not any(has_settings_of(sweep, folder) for folder in waiting(sweep).values())


def jobs_of_round(sweep: Sweep) -> set[str]:
    """Return the jobs in SLURM's queue that have stages of the present round."""
    states = sweep.rounds_until_now().states.values()
    jobs = {state.job for state in states if state.name in UNDER_WAY}
    return jobs & sweep.scheduler.jobs.keys()


def count_unfinished(sweep: Sweep) -> int:
    """Return how many stages of the rounds until now have no result."""
    return sum(state.name not in FINISHED for state in sweep.rounds_until_now().states.values())


def last_log(sweep: Sweep) -> Path | None:
    """Return the log of the last decision that has begun, or None where none has."""
    logs = [log for r in _records(sweep) for log in r["folder"].glob("*_0_log.out")]
    return max(logs, key=lambda path: path.stat().st_mtime, default=None)


def describe(sweep: Sweep) -> list[str]:
    """Return a sentence where the next round of a sweep has to be launched by the user."""
    if sweep.settlement is None or not sweep.settlement.round or queued(sweep):
        return []
    number = sweep.settlement.number
    if jobs_of_round(sweep):
        return [f"no job is queued that decides what follows round {number}: launch again"]
    if not (records := _records(sweep)):
        return []
    ended = sweep.scheduler.ended.get(decision_name(sweep.launch, sweep.plan), "job ended")
    why = f"the decision's {ended}"
    with contextlib.suppress(OSError, Damaged):
        end = read_bytes(records[-1]["folder"] / END_FILE, longest=LONGEST)
        why = f"the rounds ended: {end.decode(errors='replace')}"
    return [f"round {number} is not queued ({why}): launch again"]


def write(folder: Path, sweep: Sweep, words: Sequence[str]) -> None:
    """Write to the folder of a launch what a decision on its next round needs."""
    assert sweep.settlement is not None
    content = {
        "launch": _as_dict(sweep.launch),
        "words": list(words),
        "round": sweep.settlement.number,
        "unfinished": count_unfinished(sweep),
    }
    atomic_write(folder / LAUNCH_FILE, json.dumps(content).encode())


def read(path: Path) -> Decision:
    """Return what `write` wrote, from the folder of the decision's job."""
    content = json.loads((path.parent / LAUNCH_FILE).read_bytes())
    launch = _from_dict(content["launch"])
    return Decision(launch, content["words"], content["round"], content["unfinished"])


def _records(sweep: Sweep) -> list[Mapping[str, Any]]:
    """Return the submissions of decisions on the rounds of this sweep, oldest first."""
    if sweep.launch.settle is None:
        return []
    parts = [[decision_name(sweep.launch, sweep.plan)]]
    records = read_records(sweep.store.root, sweep.launch.grid.name)
    return [r for r in records if r.get("parts") == parts and not r["of_copy"]]


def waiting(sweep: Sweep) -> dict[str, Path]:
    """Return the decisions that have not started and can start, with the folders of their jobs.

    One that runs does not count: it may have read the queue before the present round was queued.
    """
    folders = {record["name"]: record["folder"] for record in _records(sweep)}
    return {
        job: folders[entry.name]
        for job, entry in queued(sweep).items()
        if entry.state == "PENDING" and not slurm.never_starts(entry.reason)
    }


def has_settings_of(sweep: Sweep, folder: Path) -> bool:
    """Return whether a decision was queued with the present settings of the launch."""
    try:
        content = json.loads((folder.parent / LAUNCH_FILE).read_bytes())["launch"]
        present = _as_dict(sweep.launch)
        return all(content[key] == present[key] for key in ("run", "cluster", "options"))
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _as_dict(launch: Launch) -> dict[str, Any]:
    """Return a launch as values of JSON, without its option retry, which counts once."""
    settle = launch.settle
    return {
        "name": launch.grid.name,
        "axes": list(launch.grid.axes),
        "trials": {t.id: t.config.model_dump(mode="json") for t in launch.grid.trials},
        "run": launch.run.model_dump(mode="json"),
        "cluster": launch.cluster.model_dump(mode="json"),
        "store": str(Store(launch.store).root),
        "options": {key: launch.options.get(key) for key in ("where", "budget")},
        "resolved": dict(launch.resolved),
        "settle": None if settle is None else settle.model_dump(mode="json"),
        "evaluate": list(launch.evaluate),
        "words": list(launch.words),
    }


def _from_dict(content: Mapping[str, Any]) -> Launch:
    axes = tuple(content["axes"])
    trials = []
    for trial, values in content["trials"].items():
        config = TrialConfig.model_validate(values, strict=False)
        cell = {axis: value_at(config, axis_path(axis) or axis) for axis in axes}
        trials.append(Trial(trial, cell, config))
    return Launch(
        Grid(content["name"], axes, tuple(trials), ()),
        RunConfig.model_validate(content["run"], strict=False),
        ClusterConfig.model_validate(content["cluster"], strict=False),
        Path(content["store"]),
        {**content["options"], "retry": None, "dry_run": False},
        content["resolved"],
        SettleConfig.model_validate(content["settle"], strict=False),
        tuple(content.get("evaluate", ())),  # absent from files of older versions, as are words
        tuple(content.get("words", ())),
    )

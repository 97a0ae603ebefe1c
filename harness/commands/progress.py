"""What status says of single stages and trials: how far training is, and each trial in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from harness.cluster import Sweep
from harness.states import FINISHED
from harness.store.records import Count, Number, Record, Seconds, read_lines

MOST_RUNNING = 10  # stages printed; the others are counted


class _Epoch(Record):
    """A row of `metrics.jsonl`; `seconds` are those of the whole training until then."""

    epoch: Count
    train_loss: Number | None
    seconds: Seconds


def running_stages(sweep: Sweep) -> list[dict[str, Any]]:
    """Return how far the running stages of the selected trials are, as `format=json` prints it.

    `epoch` is the last one that ended, 0 before the first. `train_loss` and `seconds_per_epoch` are
    those of that epoch, or None before it; the loss is also None where it is not finite.
    """
    stages = []
    trial_of_stage = {stage: trial for trial in sweep.trials for stage in trial["stages"]}
    for stage in sweep.stages():
        if sweep.states[stage].name != "running":
            continue
        epochs = read_lines(sweep.store.folder(stage) / "metrics.jsonl", _Epoch)
        start: dict[str, Any] = {"epoch": 0, "train_loss": None, "seconds": 0.0}
        before, last = [start, start, *epochs][-2:]
        count = last["epoch"] - before["epoch"]
        pace = (last["seconds"] - before["seconds"]) / count if count > 0 else None
        stages.append(
            {
                "stage": stage,
                "trial": trial_of_stage[stage]["trial"],
                "job": sweep.states[stage].job,
                "epoch": last["epoch"],
                "epochs": sweep.plan.stages[stage].recipe.epochs,
                "train_loss": last["train_loss"],
                "seconds_per_epoch": pace,
            }
        )
    return stages


def describe_running(sweep: Sweep) -> list[str]:
    """Return a line for each running stage: its trial, epochs, last loss and pace."""
    trials = {trial["trial"]: trial for trial in sweep.trials}
    stages = running_stages(sweep)
    lines = [
        f"  {stage['stage']} ({_cell(sweep, trials[stage['trial']])}): {_describe(stage)}"
        for stage in stages[:MOST_RUNNING]
    ]
    if len(stages) > MOST_RUNNING:
        lines.append(f"  and {len(stages) - MOST_RUNNING:,} more stages are running")
    return lines


def describe_trials(sweep: Sweep) -> list[str]:
    """Return a line for each selected trial: its values, its state, and how much of it is done."""
    progress = {stage["stage"]: _describe(stage) for stage in running_stages(sweep)}
    lines = []
    for trial in sweep.trials:
        counts = Counter(sweep.states[stage].name in FINISHED for stage in trial["stages"])
        line = f"  {_cell(sweep, trial)}: {trial['state']}"
        if trial["state"] not in FINISHED:
            line += f", {counts[True]} of {counts.total()} stages done"
        sentences = [progress[stage] for stage in trial["stages"] if stage in progress]
        if not sentences and trial["why"]:
            sentences = [trial["why"]]
        lines.append("; ".join([line, *sentences]))
    return lines


def _cell(sweep: Sweep, trial: Mapping[str, Any]) -> str:
    return ", ".join(f"{axis} {trial[axis]}" for axis in sweep.launch.grid.axes if axis in trial)


def _describe(stage: Mapping[str, Any]) -> str:
    epochs = f"epoch {stage['epoch']} of {stage['epochs']} done"
    if stage["seconds_per_epoch"] is None:
        return epochs
    loss = stage["train_loss"]
    written = "not finite" if loss is None else f"{loss:.4f}"
    return f"{epochs}, loss {written}, {stage['seconds_per_epoch']:.1f} s an epoch"

"""The truth about every trial of a sweep: result file first, then heartbeat, then failures.

python -m harness.status grid=quickstart
python -m harness.status grid=quickstart by=width,sparsity where="state == 'failed'"
python -m harness.status grid=quickstart format=json
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from harness.cluster import slurm
from harness.cluster.state import STATES, StageState, stage_states, trial_state
from harness.config import load
from harness.errors import UserError, command, nearest
from harness.store.store import Store
from harness.sweep import cost
from harness.sweep.plan import Plan, make_plan
from harness.sweep.where import parse

KNOBS = {"where": str, "by": str, "format": str}
REASONS = 10  # shown; the rest is counted


def main(args: list[str]) -> int:
    """The command; returns its exit code."""
    if not args or args[0] in ("--help", "-h"):
        print(__doc__)
        return 0
    launch = load(args, KNOBS)
    plan = make_plan(launch.grid)
    store = Store(launch.store)
    states = stage_states(store, plan.stages, slurm.still_queued(store.root))
    trials = select(plan, states, launch.grid.axes, launch.knobs.get("where"))
    shape = launch.knobs.get("format", "screen")
    if shape == "json":
        print(json.dumps({"grid": launch.grid.name, "trials": trials}, indent=1))
    elif shape == "screen":
        columns = _columns(launch.grid.axes, launch.knobs.get("by"))
        print(_screen(launch.grid.name, plan, states, trials, columns))
    else:
        raise UserError(f"format={shape} is not known{nearest(shape, ['screen', 'json'])}")
    return 0


def select(
    plan: Plan, states: Mapping[str, StageState], axes: Sequence[str], where: str | None
) -> list[dict[str, Any]]:
    """A dict per trial that `where` holds for: its id, cell, state, why, stages."""
    condition = parse(where, {*axes, "state", "trial"}) if where else None
    found = []
    for trial in plan.trials:
        state = trial_state(plan.paths[trial.id], states)
        row = {"trial": trial.id, **trial.cell, "state": state.name}
        if condition is None or condition.holds(row):
            found.append({**row, "why": state.why, "stages": list(plan.paths[trial.id])})
    return found


def _columns(axes: Sequence[str], by: str | None) -> list[str]:
    if by is None:
        return [axis for axis in axes if axis != "seed"][:2]
    columns = [name.strip() for name in by.split(",")]
    for name in columns:
        if name not in axes:
            raise UserError(f"by={by}: the grid has no axis '{name}'{nearest(name, axes)}")
    return columns


def _screen(
    grid: str,
    plan: Plan,
    states: Mapping[str, StageState],
    trials: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
) -> str:
    present = [name for name in STATES if any(trial["state"] == name for trial in trials)]
    groups: dict[tuple[str, ...], Counter[str]] = {}
    for trial in trials:
        key = tuple(str(trial[column]) for column in columns)
        groups.setdefault(key, Counter())[trial["state"]] += 1
    table = [[*columns, *present, "trials"]]
    for key, counts in groups.items():
        table.append([*key, *(_number(counts[n]) for n in present), str(sum(counts.values()))])
    total = Counter(trial["state"] for trial in trials)
    foot = ["all", *[""] * (len(columns) - 1)] if columns else []
    table.append([*foot, *(_number(total[name]) for name in present), str(len(trials))])
    done = sum(state.name in ("done", "diverged") for state in states.values())
    spent = sum(state.result["timing"]["gpu_seconds"] for state in states.values() if state.result)
    left = [s for s, state in states.items() if state.name in ("waiting", "running", "damaged")]
    lines = [f"grid {grid}: {len(trials):,} trials", *_aligned(table)]
    lines.append(f"stages: {done:,} of {len(plan.stages):,} done; {spent / 3600:.2f} device-hours")
    if left:
        lines.append(cost.sentence(plan, states, left, 1))
    return "\n".join([*lines, *_reasons(states)])


def _reasons(states: Mapping[str, StageState]) -> list[str]:
    """Why stages failed, are damaged or run, each reason once with its count."""
    why = Counter(
        f"{state.name}: {state.why}"
        for state in states.values()
        if state.why and state.name in ("failed", "damaged")
    )
    shown = [f"  {count} x {reason}" for reason, count in why.most_common(REASONS)]
    more = [f"  and {len(why) - REASONS} more reasons"] if len(why) > REASONS else []
    advice = ["failed stages are tried again by launch with retry=failed"] if shown else []
    return [*shown, *more, *advice]


def _number(count: int) -> str:
    return f"{count:,}" if count else "-"


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    return [
        "  " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in table
    ]


if __name__ == "__main__":
    command(main)

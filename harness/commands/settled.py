"""What launch and status print about the sizes of a sweep with the rule `settle`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from harness.cluster import Sweep
from harness.states import FINISHED
from harness.sweep import cost
from harness.sweep.settle import Settlement, SizeState
from harness.text_table import format_table


def describe_sizes(sweep: Sweep) -> list[str]:
    """Return a table with a row per size: its best and open magnitudes, its seeds, and why.

    None without the rule `settle`.
    """
    settlement = sweep.settlement
    if settlement is None:
        return []
    axes = list(dict.fromkeys(axis for size in settlement.sizes for axis in size.size))
    table = [[*axes, "best", "open", "seeds", "ended", "why"]]
    for size in settlement.sizes:
        values = [_text(size.size.get(axis)) for axis in axes]
        best = "-" if size.best is None else _text(size.best)
        still_open = " ".join(map(_text, size.open)) or "-"
        ended = "yes" if size.is_settled else "no"
        table.append([*values, best, still_open, _seeds(size), ended, size.reason])
    return [_heading(settlement), *format_table(table, left_columns=len(table[0]))]


def as_dict(settlement: Settlement) -> dict[str, object]:
    """Return what `format=json` of status has about the rounds."""
    return {
        "round": settlement.number,
        "trials": list(settlement.round),
        "chosen": len(settlement.chosen),
        "ruled_out": len(settlement.ruled_out),
        "sizes": [
            {
                "size": dict(size.size),
                "best": size.best,
                "open": list(size.open),
                "ruled_out": list(size.ruled_out),
                "seeds": [[magnitude, count] for magnitude, count in size.seeds.items()],
                "is_settled": size.is_settled,
                "why": size.reason,
            }
            for size in settlement.sizes
        ],
    }


def describe_cost(sweep: Sweep) -> str:
    """Return a sentence that compares what the rounds have spent with the full grid."""
    part = sweep.rounds_until_now()
    rates = cost.seconds_per_epoch(sweep.plan, sweep.states, sweep.store.root)
    with_result = [stage for stage in part.stages() if sweep.states[stage].result is not None]
    spent, _ = _hours(sweep, with_result, rates)
    finished = sum(trial["state"] in FINISHED for trial in part.trials)
    full, unknown = _hours(sweep, sweep.stages(), rates)
    text = f"the rounds took {spent:.2f} device-hours"
    trials = f"{finished:,} of {len(sweep.trials):,} trials"
    if unknown:
        return f"{text} on {trials}; the cost of the full grid is not known (harness.pilot)"
    return f"{text} on {trials}; the full grid costs about {full:.2f}"


def describe_bounds(sweep: Sweep, remaining: Collection[str]) -> list[str]:
    """Return what the next round trains, and the bounds of what is still to be spent."""
    settlement = sweep.settlement
    assert settlement is not None
    if not settlement.round:
        return [f"  {line}" for line in describe_sizes(sweep)]
    possible = [s for s in sweep.not_ruled_out().stages() if sweep.states[s].result is None]
    every = sweep.stages()
    rates = cost.seconds_per_epoch(sweep.plan, sweep.states, sweep.store.root)
    least, unknown = _hours(sweep, remaining, rates)
    most, _ = _hours(sweep, possible, rates)
    full, _ = _hours(sweep, every, rates)
    bounds = (
        f"at least this round, {len(remaining):,} stages; at most all seeds of the open "
        f"magnitudes, {len(possible):,} stages; the full grid has {len(every):,}"
    )
    if not unknown:
        bounds = (
            f"at least {least:.2f} device-hours, for this round; at most {most:.2f}, for all seeds "
            f"of the open magnitudes; the full grid costs about {full:.2f}"
        )
    return [
        f"  round {settlement.number} of settle: {len(settlement.round):,} trials",
        f"  {bounds}",
        *[f"  {line}" for line in describe_sizes(sweep)],
    ]


def _heading(settlement: Settlement) -> str:
    ended = sum(size.is_settled for size in settlement.sizes)
    sizes = f"{ended:,} of {len(settlement.sizes):,} sizes have all trials that they need"
    counts = f"{len(settlement.chosen):,} trials chosen, {len(settlement.ruled_out):,} ruled out"
    if not settlement.round:
        return f"{sizes}; {counts}"
    return f"{sizes}; round {settlement.number}; {counts}"


def _seeds(size: SizeState) -> str:
    """Return the number of seeds of the magnitudes, or their range."""
    counts = sorted(set(size.seeds.values()))
    if not counts:
        return "0"
    return f"{counts[0]}" if len(counts) == 1 else f"{counts[0]}-{counts[-1]}"


def _text(value: Any) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _hours(
    sweep: Sweep, stages: Collection[str], rates: Mapping[cost.Size, float]
) -> tuple[float, int]:
    """Return device-hours of stages, and how many have no estimate.

    A finished stage counts with what it took. `rates` are those of `cost.seconds_per_epoch`.
    """
    seconds, unknown = 0.0, 0
    for stage in stages:
        if (result := sweep.states[stage].result) is not None:
            seconds += result["timing"]["gpu_seconds"]
        else:
            estimate = cost.stage_seconds(sweep.plan.stages[stage], rates)
            unknown += estimate is None
            seconds += estimate or 0.0
    return seconds / 3600, unknown

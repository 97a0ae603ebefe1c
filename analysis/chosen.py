"""Choose the finished trials whose networks are exported or timed.

Without a condition these are the best magnitude of each size, chosen on validation as in the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.best import SizeResult, best_per_size
from analysis.cells import mean_counts, size_keys
from analysis.columns import METRICS, Metric, header_of, values_of
from analysis.commands import ROW_OPTIONS, column_of, keys_in, load, selected
from analysis.render import format_levels, format_score, format_value
from harness import config
from harness.arguments import Option, split_options
from harness.config import Launch
from harness.errors import UserError
from harness.store.store import Store

OPTIONS = {
    **{name: option for name, option in ROW_OPTIONS.items() if name != "rows"},
    "seeds": Option(default="first", choices=("first", "all")),
}
"""Options of every command that chooses trials."""


@dataclass(frozen=True)
class Chosen:
    """A finished trial with kept weights; `how` are sentences on how it was chosen."""

    row: Mapping[str, Any]
    how: str

    @property
    def trial(self) -> str:
        """The id of the trial."""
        return str(self.row["trial"])

    @property
    def stage(self) -> str:
        """The id of the trial's last stage, whose final weights are the network."""
        return str(self.row["stage"])


def read_chosen(
    args: Sequence[str], options: Mapping[str, Option]
) -> tuple[Launch, dict[str, Any], list[Chosen]]:
    """Return the launch that a command line names, the values of `options`, the chosen trials.

    `options` has those of `OPTIONS`. Raises UserError where no trial is chosen, or a chosen one is
    not finished or has no weights.
    """
    overrides, values = split_options(args, options)
    where = values["where"]
    if where is not None and any(arg.startswith("seeds=") for arg in args):
        raise UserError(
            "where= and seeds= were given: where= chooses trials, seeds included, and seeds= those "
            "of the best magnitude; keep one of them"
        )
    launch = config.load(list(args), options)
    frame = load(overrides, None, options, keys_in(where, values["by"]))
    if where is not None:
        chosen = [Chosen(row, f"It was chosen by the condition `{where}`.")
                  for row in _rows(selected(frame, where))]  # fmt: skip
    else:
        by = values["by"] and [column_of(frame, name) for name in values["by"]]
        chosen = _best(frame, by, METRICS[values["metric"]], values["seeds"])
    _check(launch, where, chosen)
    return launch, values, chosen


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows as dictionaries, None where a value is missing."""
    names = [str(name) for name in frame.columns]
    columns = [values_of(frame, name) for name in names]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _best(
    frame: pd.DataFrame, by: Sequence[str] | None, metric: Metric, seeds: str
) -> list[Chosen]:
    """Return the seeds of the best magnitude of each size; a size without one is left out."""
    chosen: list[Chosen] = []
    rows = _rows(frame)
    for result in best_per_size(frame, by, metric, optima=False):
        best, names = result.best, list(result.size)
        if best is None:
            continue
        keys = size_keys(mean_counts(frame, names), names)
        of_best = [
            row
            for row, key in zip(rows, keys, strict=True)
            if key == tuple(result.size.values())
            and (row["state"], row["magnitude"]) == ("done", best.magnitude)
        ]
        of_best.sort(key=lambda row: float(row["seed"]))
        how = _how(result, metric)
        chosen += [Chosen(row, how) for row in (of_best if seeds == "all" else of_best[:1])]
    return chosen


def _how(result: SizeResult, metric: Metric) -> str:
    """Return how the best magnitude of a size was chosen, and its scores over the seeds."""
    best = result.best
    assert best is not None
    size = ", ".join(f"{header_of(name)} {format_value(v)}" for name, v in result.size.items())
    magnitudes = [cell.magnitude for cell in result.cells]
    ties = format_levels(result.ties, magnitudes)
    means = f"{format_score(best.mean_val, metric)} {metric.unit} on validation"
    test = ", ".join(format_score(score, metric) for score in best.test)
    rule = (
        "has the lowest expected loss on the smooth curve through the validation means, among the "
        "magnitudes that tie with the best mean"
        if result.is_by_curve
        else "has the best mean"
    )
    return (
        f"Of the magnitudes {', '.join(map(format_value, magnitudes))} at this size ({size}), "
        f"{format_value(best.magnitude)} {rule} ({metric.name}, {len(best.val)} finished seeds: "
        f"{means}). "
        + (f"It is statistically indistinguishable from {ties}. " if len(result.ties) > 1 else "")
        + "Only validation images took part in the choice. The seeds of that magnitude have "
        f"{test} {metric.unit} on test, mean {format_score(best.mean_test, metric)}."
    )


def _check(launch: Launch, where: str | None, chosen: Sequence[Chosen]) -> None:
    """Raise UserError unless all chosen trials are finished and have weights."""
    store = Store(launch.store)
    if not chosen:
        raise UserError(
            f"grid {launch.grid.name} has no size with a best magnitude yet: "
            f"{launch.command('harness.status')} shows which trials are open"
        )
    unfinished = [item for item in chosen if item.row["state"] != "done"]
    if unfinished:
        row = unfinished[0].row
        raise UserError(
            f"{len(unfinished)} of the {len(chosen)} trials that where= chooses have no network, "
            f"such as {row['trial']}, which is {row['state']}: finish them with "
            f"{launch.command('harness.launch')}, or choose others with "
            f"where=\"({where}) and state == 'done'\""
        )
    weightless = [item for item in chosen if not store.has_weights(item.stage)]
    if weightless:
        again = launch.command(
            "harness.launch", "run.keep_weights=all", f"store={launch.store}-with-weights"
        )
        raise UserError(
            f"the weights of {len(weightless)} of the {len(chosen)} chosen trials, such as "
            f"{weightless[0].trial} (stage {weightless[0].stage}), were not kept: `{again}` "
            "trains them into another store and keeps them"
        )

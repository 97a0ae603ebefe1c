"""Rows grouped into sizes and cells: a cell holds all seeds of one magnitude at one size.

A size is a combination of values of the size columns: by default every axis that varies in the
rows, apart from magnitude and seed.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd

from analysis.columns import (
    AXES,
    CLASS_METRICS,
    COLUMNS,
    COUNTS,
    EVALUATED,
    NONE,
    RESULTS,
    TIMES,
    TOP1,
    Metric,
    is_axis,
    is_missing,
    values_of,
)
from harness.errors import UserError, nearest
from harness.states import RULED_OUT
from harness.statistics import Estimate, contrast, mean

SizeKey = tuple[Any, ...]  # the values of the size columns
MODEL_SIZES = ("width", "depth")
"""Axes whose words (tiny, small, base) name sizes, as those of columns that no sweep writes may."""
LEAST_STEP = 0.01  # share by which sizes differ in parameters; masks of one size differ by less
TIME_DIGITS = 4  # significant digits of the mean time of a size
LENGTHS = ("epochs", "examples")  # how long a trial trained, along its path


@dataclass(frozen=True)
class Cell:
    """All seeds of one magnitude at one size."""

    magnitude: float | str
    val: tuple[float, ...]  # the metric on validation, of the seeds that are done
    test: tuple[float, ...]  # on test, in the same order
    seeds: int  # in the grid, without those that were ruled out
    diverged: int
    stages: tuple[str, ...] = ()  # ids of the last stages of the seeds that are done
    ruled_out: int = 0  # seeds without a result that the sweep's rule (`settle`) left out

    @property
    def missing(self) -> int:
        """Number of seeds that are not finished."""
        return self.seeds - len(self.val) - self.diverged

    @property
    def is_ruled_out(self) -> bool:
        """Whether the sweep's rule left the magnitude out before it was trained."""
        return not self.seeds

    @property
    def is_usable(self) -> bool:
        """Whether the cell can be chosen: some seeds are done and none diverged.

        Where some seeds diverged, the mean of the others would be too high.
        """
        return bool(self.val) and not self.diverged

    @property
    def mean_val(self) -> float:
        """Mean over seeds on validation."""
        return mean(self.val)

    @property
    def mean_test(self) -> float:
        """Mean over seeds on test."""
        return mean(self.test)


class SizeCells(NamedTuple):
    """A size, its cells by rising magnitude, and its mean number of non-zero parameters."""

    size: dict[str, Any]
    cells: tuple[Cell, ...]
    params: float | None


class Run(NamedTuple):
    """One run of a cell: the values of a row that the analysis of the cell uses."""

    seed: float
    state: str
    val: float
    test: float
    stage: Any


def magnitude_key(magnitude: float | str) -> float:
    """Return a key for sorting magnitudes: `none` comes first."""
    return -1.0 if magnitude == NONE else float(magnitude)


def difference_on_test(
    first: Cell, second: Cell, cells: Sequence[Cell], metric: Metric, choices: int = 1
) -> Estimate:
    """Return how much better the mean test result of `first` is than that of `second`.

    The other ones of `cells` only contribute to the estimate of the noise. `choices` is as in
    `harness.statistics.half_width`.
    """
    sign = float(metric.sign)
    others = [(0.0, cell.test) for cell in cells if cell is not first and cell is not second]
    return contrast([[(sign, first.test), (-sign, second.test), *others]], choices)


def size_columns(frame: pd.DataFrame, by: Sequence[str] | None = None) -> list[str]:
    """Return the columns that distinguish sizes: `by`, or every axis that varies.

    Axes that others determine are left out: `calibrated` if the policy determines it, `epochs` if
    trials that agree in the other axes agree in it. Grids that differ in something that is not an
    axis are distinguished by name.
    """
    if by is not None:
        for name in by:
            if name in TIMES and name not in frame.columns:
                raise UserError(
                    f"by: {name} was not measured: python -m harness.latency grid=NAME measures it"
                )
            if name not in frame.columns:
                raise UserError(f"by: there is no column '{name}'{nearest(name, frame.columns)}")
        return list(dict.fromkeys(by))
    axes = [*AXES, *(name for name in frame.columns if is_axis(name) and name not in AXES)]
    candidates = [name for name in axes if name in frame.columns and name != "epochs"]
    varied = [name for name in candidates if frame[name].nunique(dropna=False) > 1]
    if {"policy", "calibrated"} <= set(varied) and is_determined(frame, "calibrated", ["policy"]):
        varied.remove("calibrated")
    if "epochs" in frame.columns:
        # a diverged trial has not trained for all of its epochs
        rows = frame[frame["epochs"].notna() & (frame["state"] != "diverged")]
        if rows["epochs"].nunique() > 1 and not is_determined(rows, "epochs", varied):
            varied.append("epochs")
    if (
        "grid" in frame.columns
        and frame["grid"].nunique(dropna=False) > 1
        and frame.duplicated([*varied, "magnitude", "seed"]).any()
    ):
        varied.append("grid")
    return varied or (["width"] if "width" in frame.columns else [])


def is_determined(frame: pd.DataFrame, name: str, others: Sequence[str]) -> bool:
    """Return whether rows that agree in the columns `others` agree in the column `name`."""
    if not others:
        return bool(frame[name].nunique(dropna=False) <= 1)
    groups = frame.groupby(list(others), dropna=False, sort=False)[name]
    return bool((groups.nunique(dropna=False) <= 1).all())


def groups_of(
    frame: pd.DataFrame, columns: Sequence[str]
) -> list[tuple[dict[str, Any], pd.DataFrame]]:
    """Return the rows of each combination of values of the columns; all rows for no column."""
    if not columns:
        return [({}, frame)]
    groups = frame.groupby(list(columns), dropna=False, sort=True)
    return [(dict(zip(columns, key, strict=True)), part) for key, part in groups]


def planned(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the trials that have a result or will get one: not those ruled out."""
    return frame[frame["state"] != RULED_OUT]


def mean_counts(frame: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Return the rows with each count or time among `columns` replaced by its mean over the size.

    Masks differ from seed to seed, and so do counts such as `params_nonzero` and times; without
    this, each seed would be a size of its own.
    """
    counts = [name for name in columns if name in (*COUNTS, *TIMES) and name != "epochs"]
    if not counts:
        return frame
    axes = [frame[name] for name in size_columns(frame)]
    one_size = [0] * len(frame)  # for rows in which no axis varies
    means = frame.groupby(axes or one_size, dropna=False, sort=False)[counts].transform("mean")
    frame = frame.copy()
    for name in counts:
        values = values_of(means, name)
        if name in TIMES and None in values:
            raise UserError(
                f"by: {name} of some sizes was not measured: python -m harness.latency grid=NAME "
                f"measures a network of each size; or leave sizes out with where="
            )
        digits = TIME_DIGITS if name in TIMES else None
        frame[name] = [value if value is None else _rounded(value, digits) for value in values]
    return frame


def _rounded(value: float, digits: int | None) -> float:
    """Return the value with that many significant digits; a whole number for None."""
    return round(value) if digits is None else float(f"{value:.{digits}g}")


def size_keys(frame: pd.DataFrame, columns: Sequence[str]) -> list[SizeKey]:
    """Return for each row the values of the size columns; None where one is missing."""
    values = [values_of(frame, name) for name in columns]
    return list(zip(*values, strict=True)) if values else [()] * len(frame)


def cells_per_size(
    frame: pd.DataFrame, columns: Sequence[str], metric: Metric = TOP1
) -> list[SizeCells]:
    """Return the cells of each size, sizes in the order of the values of their columns.

    Raises UserError where rows of one cell are not replicates of each other.
    """
    scores = [f"val_{metric.name}", f"test_{metric.name}"]
    for name in scores:
        if name not in frame.columns:
            raise UserError(
                f"metric={metric.name}: the rows have no column '{name}'{_not_recorded(metric)}"
            )
        is_usable = (frame["state"] != "done") | frame[name].abs().lt(math.inf)
        if not is_usable.all():
            raise UserError(
                f"metric={metric.name}: {(~is_usable).sum()} rows are done and have no finite "
                f"number in the column '{name}'{_not_recorded(metric)}"
            )
    frame = mean_counts(frame, columns)
    _check_seeds(frame, columns)
    keys = size_keys(frame, columns)
    runs_of: dict[SizeKey, dict[float | str, list[Run]]] = {}
    values = [frame[name].tolist() for name in ("magnitude", "seed", "state", *scores)]
    rows = zip(keys, *values, values_of(frame, "stage"), strict=True)
    for key, magnitude, seed, state, val, test, stage in rows:
        run = Run(seed, state, val, test, stage)
        runs_of.setdefault(key, {}).setdefault(magnitude, []).append(run)
    params_of: dict[SizeKey, list[float]] = {}
    for key, params in zip(keys, values_of(frame, "params_nonzero"), strict=True):
        if params is not None:
            params_of.setdefault(key, []).append(params)
    sizes = []
    ranks = [_ranks_of_words(frame, name) or {} for name in columns]
    for key in sorted(runs_of, key=lambda key: list(map(_sort_key, key, ranks))):
        size = dict(zip(columns, key, strict=True))
        cells = tuple(
            _cell(magnitude, runs_of[key][magnitude])
            for magnitude in sorted(runs_of[key], key=magnitude_key)
        )
        sizes.append(SizeCells(size, cells, mean(params_of[key]) if key in params_of else None))
    return sizes


def _not_recorded(metric: Metric) -> str:
    """Return why results may lack a metric, and the remedy, as the end of a sentence."""
    if metric.name == "top5":
        return "; it is recorded for sets with 20 classes or more, and not by older versions"
    if metric.name == "calibration_error":
        return "; not recorded: results of older versions lack it, and retry cannot add it"
    if metric.name in CLASS_METRICS:
        return (
            "; not recorded: for results of older versions it is computed where the data set is "
            "found, for example with run.data_root=PATH"
        )
    if metric.name in EVALUATED:
        return (
            "; not evaluated: run `python -m harness.evaluate grid=NAME "
            f"on={EVALUATED[metric.name]}`"
        )
    return ""


def _cell(magnitude: float | str, runs: Sequence[Run]) -> Cell:
    done = sorted((run for run in runs if run.state == "done"), key=lambda run: run.seed)
    ruled_out = sum(run.state == RULED_OUT for run in runs)
    return Cell(
        magnitude,
        tuple(run.val for run in done),
        tuple(run.test for run in done),
        len(runs) - ruled_out,
        sum(run.state == "diverged" for run in runs),
        tuple(run.stage for run in done if isinstance(run.stage, str)),
        ruled_out,
    )


def _check_seeds(frame: pd.DataFrame, columns: Sequence[str]) -> None:
    """Raise UserError where a seed occurs twice in a cell, with the columns that differ."""
    names = list(dict.fromkeys([*columns, "magnitude", "seed"]))
    repeated = frame[frame.duplicated(names, keep=False)]
    if repeated.empty:
        return
    _, rows = next(iter(repeated.groupby(names, dropna=False, sort=False)))
    differing = [
        str(name)
        for name in frame.columns
        if name not in ("trial", "stage", "state") and rows[name].nunique(dropna=False) > 1
    ]
    causes = [name for name in differing if name not in RESULTS]
    shown = sorted(causes, key=lambda name: not is_axis(name))[:5]  # axes first
    if shown:
        advice = f"they differ in {', '.join(shown)}: add it to by=, or select rows with where="
    elif differing:
        advice = f"they differ only in results ({', '.join(differing[:5])}): keep one of them"
    else:
        advice = "the rows are equal: remove one of them"
    where = ", ".join(f"{name} {values_of(rows, name)[0]}" for name in names if name != "seed")
    seed = rows["seed"].iloc[0]
    raise UserError(f"the cell {where} has seed {seed:g} {len(rows)} times; {advice}")


def _sort_key(value: Any, ranks: Mapping[Hashable, int]) -> tuple[Any, ...]:
    """Return a key that sorts missing values first, then numbers, then words by their ranks."""
    if value is None:
        return (0,)
    if isinstance(value, int | float) and not ranks:
        return 1, value
    return 2, ranks.get(value, 0), str(value)


def is_ordered(frame: pd.DataFrame, name: str) -> bool:
    """Return whether sizes have an order: numbers, or words with numbers of parameters."""
    return frame[name].dtype.kind in "iuf" or _ranks_of_words(frame, name) is not None


def _ranks_of_words(frame: pd.DataFrame, name: str) -> dict[Hashable, int] | None:
    """Return the ranks of a column's words by their mean numbers of parameters.

    None if the column does not name sizes, or if these numbers do not order its words.
    """
    is_other = (name in COLUMNS or is_axis(name)) and name not in MODEL_SIZES
    if is_other or frame[name].dtype.kind in "iufb":
        return None
    counts = [
        n for n in ("params_nonzero", "params_total") if n in frame and frame[n].notna().any()
    ]
    if not counts:
        return None
    means = frame.groupby(name)[counts[0]].mean().sort_values()
    if means.isna().any() or (means.pct_change().dropna() < LEAST_STEP).any():
        return None
    return {word: rank for rank, word in enumerate(means.index)}


def ranges(
    frame: pd.DataFrame, columns: Sequence[str], names: Sequence[str]
) -> dict[SizeKey, dict[str, tuple[float, float]]]:
    """Return the lowest and highest value of the columns `names` at each size, where known.

    A diverged trial has not trained for its whole length, and does not count.
    """
    frame = frame[frame["state"] != "diverged"]
    keys = size_keys(frame, columns)
    bounds: dict[SizeKey, dict[str, tuple[float, float]]] = {key: {} for key in set(keys)}
    for name in (name for name in names if name in frame.columns):
        if frame[name].nunique(dropna=False) == 1:
            value = frame[name].iloc[0]
            for of_size in bounds.values() if not is_missing(value) else ():
                of_size[name] = value, value
            continue
        for key, value in zip(keys, values_of(frame, name), strict=True):
            if value is not None:
                low, high = bounds[key].get(name, (value, value))
                bounds[key][name] = min(low, value), max(high, value)
    return bounds

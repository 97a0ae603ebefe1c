"""The best magnitude for each size: chosen on validation, reported on test.

A test number takes part in no choice. Cells with a diverged seed are shown and cannot win: the
mean of the seeds that survived would flatter them. Missing seeds are shown too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from analysis import stats
from analysis.checks import COUNTS, flat
from analysis.rows import AXES, is_axis
from harness.errors import UserError, nearest
from harness.store.provenance import RECORDED
from harness.verb import callable_module

if TYPE_CHECKING:
    import pandas as pd

    from analysis.optimum import Optimum

MIXED = ("split_hash", *(column for column in RECORDED if column != "split_hash"))
"""Columns in which the rows of one table should agree, the most important one first."""
NONE = "none"
POLICY = ("policy", "calibrated")
MOST_OPTIMA = 500  # sizes for which the smooth optimum is worked out: some 2 ms each


@dataclass(frozen=True)
class Metric:
    """What is compared: columns val_<name> and test_<name>; numbers are shown times `scale`."""

    name: str
    sign: int  # 1 where higher is better, -1 where lower is
    scale: float
    digits: int
    words: str


METRICS = {
    "top1": Metric("top1", 1, 100.0, 1, "Top-1 accuracies in percent"),
    "loss": Metric("loss", -1, 1.0, 3, "Cross entropies in nats"),
}
TOP1 = METRICS["top1"]


@dataclass(frozen=True)
class Cell:
    """All seeds of one magnitude at one size."""

    magnitude: float | str
    val: tuple[float, ...]  # metric of the seeds that are done
    test: tuple[float, ...]  # in the same order
    seeds: int  # that the grid asks for
    diverged: int
    runs: tuple[str, ...] = ()  # their last stages: arms may share them

    @property
    def missing(self) -> int:
        """Seeds that are not finished."""
        return self.seeds - len(self.val) - self.diverged

    @property
    def usable(self) -> bool:
        """Whether it can win: some seeds are done and none diverged."""
        return bool(self.val) and not self.diverged

    @property
    def mean_val(self) -> float:
        """Mean over seeds on validation."""
        return stats.mean(self.val)

    @property
    def mean_test(self) -> float:
        """Mean over seeds on test."""
        return stats.mean(self.test)


@dataclass(frozen=True)
class Best:
    """One line of the table. `half` is of a 95 % interval, NaN with one seed."""

    size: dict[str, Any]
    cells: tuple[Cell, ...]
    params: float | None  # mean number of parameters that are not zero
    best: Cell | None  # none where no cell is finished
    ties: tuple[float | str, ...]
    optimum: Optimum | None = None  # on validation
    test: float = math.nan
    test_half: float = math.nan
    gain: float = math.nan  # over `none`; positive is better, whatever the metric
    gain_half: float = math.nan
    spread: stats.Spread = field(default=stats.Spread(math.nan, 0))  # of test
    mixed: tuple[str, ...] = ()  # columns of MIXED in which its rows differ; flags of its trials
    none: Cell | None = None  # what gain is over: of this size, or of another policy


def magnitude_key(magnitude: float | str) -> float:
    """Sorts `none` first."""
    return -1.0 if magnitude == NONE else float(magnitude)


def size_columns(frame: pd.DataFrame, by: Sequence[str] | None = None) -> list[str]:
    """The columns that sizes are told apart by: `by`, or every axis that varies.

    What only follows from the others is left out: `calibrated` from the policy, `epochs` from how
    a trial of its kind is trained. Grids that differ in what is no axis are told apart by name.
    """
    if by is not None:
        for name in by:
            if name not in frame.columns:
                raise UserError(f"by: there is no column '{name}'{nearest(name, frame.columns)}")
        return list(dict.fromkeys(by))
    axes = [*AXES, *(name for name in frame.columns if is_axis(name) and name not in AXES)]
    there = [n for n in axes if n in frame.columns and n != "epochs"]
    varied = [n for n in there if frame[n].nunique(dropna=False) > 1]
    if {"policy", "calibrated"} <= set(varied) and follows(frame, "calibrated", ["policy"]):
        varied.remove("calibrated")
    if "epochs" in frame.columns:
        # a trial that diverged has not taken all of its epochs
        known = frame[frame["epochs"].notna() & (frame["state"] != "diverged")]
        if known["epochs"].nunique() > 1 and not follows(known, "epochs", varied):
            varied.append("epochs")
    if (
        "grid" in frame.columns
        and frame["grid"].nunique(dropna=False) > 1
        and frame.duplicated([*varied, "magnitude", "seed"]).any()
    ):
        varied.append("grid")
    return varied or [name for name in ("width",) if name in frame.columns]


def follows(frame: pd.DataFrame, name: str, others: Sequence[str]) -> bool:
    """Whether rows that agree in `others` agree in the column `name`."""
    if not others:
        return bool(frame[name].nunique(dropna=False) <= 1)
    groups = frame.groupby(list(others), dropna=False, sort=False)[name]
    return bool((groups.nunique(dropna=False) <= 1).all())


def best_per_size(
    frame: pd.DataFrame,
    by: Sequence[str] | None = None,
    metric: Metric = TOP1,
    optima: bool = True,
) -> list[Best]:
    """A line per size, in the order of the size columns.

    `optima=False` leaves the smooth optimum out. Raises UserError where rows of one cell are no
    replicates of each other.
    """
    columns = size_columns(frame, by)
    sizes = cells_per_size(frame, columns, metric)
    mixed = _mixed(mean_counts(frame, columns), columns)
    wanted = optima and len(sizes) <= MOST_OPTIMA
    without = {_but_policy(size): none for size, cells, _ in sizes if (none := _none(cells))}
    lines = [
        _best(size, cells, params, without.get(_but_policy(size)), metric, wanted)
        for size, cells, params in sizes
    ]
    return [replace(line, mixed=mixed.get(tuple(line.size.values()), ())) for line in lines]


def mean_counts(frame: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """The rows; a count among `columns` becomes its mean over the rows of one size.

    Masks differ from seed to seed, and with them what is left: a size is what the axes say.
    """
    counts = [name for name in columns if name in COUNTS and name != "epochs"]
    if not counts:
        return frame
    axes = [frame[name] for name in size_columns(frame)]
    one = [0] * len(frame)  # where nothing varies, all is one size
    means = frame.groupby(axes or one, dropna=False, sort=False)[counts].transform("mean")
    frame = frame.copy()
    for name in counts:
        whole = [None if v != v else round(v) for v in means[name]]
        frame[name] = whole
    return frame


def _mixed(frame: pd.DataFrame, columns: Sequence[str]) -> dict[tuple[Any, ...], tuple[str, ...]]:
    """Per size the columns in which its finished rows were made differently, and their flags."""
    done = frame[frame["state"] == "done"]
    keys = [_known(done[name].tolist()) for name in columns]
    sizes = list(zip(*keys, strict=True)) if keys else [()] * len(done)
    found: dict[tuple[Any, ...], dict[str, None]] = {}
    for column in (name for name in MIXED if _differs(done, name)):
        first: dict[tuple[Any, ...], Any] = {}
        for size, value in zip(sizes, _known(done[column].tolist()), strict=True):
            if first.setdefault(size, value) != value:
                found.setdefault(size, {})[column] = None
    if "flags" in done.columns:
        for size, words in zip(sizes, done["flags"].tolist(), strict=True):
            if isinstance(words, str) and words:
                found.setdefault(size, {}).update(dict.fromkeys(words.split(";")))
    return {size: tuple(words) for size, words in found.items()}


def _differs(done: pd.DataFrame, name: str) -> bool:
    if name not in done.columns:
        return False
    parts = [n for n in ("dataset", "train_size") if name == "split_hash" and n in done.columns]
    return not follows(done, name, parts)  # each data set, and share of one, has its own split


def _none(cells: Sequence[Cell]) -> Cell | None:
    return next((cell for cell in cells if cell.magnitude == NONE and cell.usable), None)


def _but_policy(size: Mapping[str, Any]) -> tuple[Any, ...]:
    """What `none` is a size of: no augmentation is the same under every policy."""
    return tuple(value for name, value in size.items() if name not in POLICY)


def cells_per_size(
    frame: pd.DataFrame, columns: Sequence[str], metric: Metric = TOP1
) -> list[tuple[dict[str, Any], tuple[Cell, ...], float | None]]:
    """(size, its cells in the order of magnitude, mean non-zero parameters), sizes in order."""
    scores = [f"val_{metric.name}", f"test_{metric.name}"]
    for name in scores:
        if name not in frame.columns:
            raise UserError(f"metric={metric.name}: the rows have no column '{name}'")
    frame = mean_counts(frame, columns)
    groups: dict[tuple[Any, ...], dict[float | str, list[tuple[Any, ...]]]] = {}
    weights: dict[tuple[Any, ...], list[float]] = {}
    keys = [_known(frame[name].tolist()) for name in columns]
    sizes = list(zip(*keys, strict=True)) if keys else [()] * len(frame)
    told = ("seed", "state", *scores)
    stages = frame["stage"].tolist() if "stage" in frame.columns else [None] * len(frame)
    runs = zip(*(frame[name].tolist() for name in told), stages, strict=True)
    for size, magnitude, run in zip(sizes, frame["magnitude"].tolist(), runs, strict=True):
        groups.setdefault(size, {}).setdefault(magnitude, []).append(run)
    if "params_nonzero" in frame.columns:
        for size, value in zip(sizes, _known(frame["params_nonzero"].tolist()), strict=True):
            if value is not None:
                weights.setdefault(size, []).append(value)
    found = []
    for size in sorted(groups, key=lambda key: [_order(value) for value in key]):
        named = dict(zip(columns, size, strict=True))
        cells = [
            _cell(frame, named, magnitude, groups[size][magnitude], metric)
            for magnitude in sorted(groups[size], key=magnitude_key)
        ]
        params = stats.mean(weights[size]) if size in weights else None
        found.append((named, tuple(cells), params))
    return found


def _cell(
    frame: pd.DataFrame,
    size: dict[str, Any],
    magnitude: float | str,
    runs: Sequence[tuple[Any, ...]],
    metric: Metric,
) -> Cell:
    if len({seed for seed, *_ in runs}) < len(runs):
        raise UserError(_no_replicates(frame, size, magnitude))
    done = sorted((run[0], *run[2:]) for run in runs if run[1] == "done")
    if not all(math.isfinite(value) for _, *scores, _ in done for value in scores):
        raise UserError(f"metric={metric.name}: a row that is done has no finite number")
    return Cell(
        magnitude,
        tuple(val for _, val, *_ in done),
        tuple(test for _, _, test, _ in done),
        len(runs),
        sum(state == "diverged" for _, state, *_ in runs),
        tuple(stage for *_, stage in done if isinstance(stage, str)),
    )


def _no_replicates(frame: pd.DataFrame, size: dict[str, Any], magnitude: float | str) -> str:
    """What to say when one seed is twice in a cell: which columns tell its rows apart."""
    inside = frame["magnitude"] == magnitude
    for name, value in size.items():
        inside &= frame[name].isna() if value is None else frame[name] == value
    rows = frame[inside]
    first = rows[rows["seed"] == rows.loc[rows["seed"].duplicated(), "seed"].iloc[0]]
    differ = [
        str(name)
        for name in frame.columns
        if name not in ("trial", "stage", "state") and first[name].nunique(dropna=False) > 1
    ]
    apart = sorted(differ, key=lambda name: not is_axis(name))[:5]
    where = ", ".join(f"{name} {value}" for name, value in {**size, "magnitude": magnitude}.items())
    told = (
        f"they differ in {', '.join(apart)}: add it to by=, or choose with where="
        if apart
        else ("the rows are equal: take one of them out")
    )
    return f"the cell {where} has seed {first['seed'].iloc[0]:g} {len(first)} times; {told}"


def _known(values: Iterable[Any]) -> list[Any]:
    """NaN as None: NaN is not equal to itself and would make a size of every row."""
    return [None if value != value else value for value in values]


def _order(value: Any) -> tuple[int, Any]:
    """Sorts missing first, then numbers, then words."""
    if value is None:
        return 0, 0
    return (1, value) if isinstance(value, int | float) else (2, str(value))


def _best(
    size: dict[str, Any],
    cells: tuple[Cell, ...],
    params: float | None,
    elsewhere: Cell | None,
    metric: Metric,
    optima: bool,
) -> Best:
    """`elsewhere`: the `none` cell of the same size under another policy."""
    running = {cell.magnitude: cell for cell in cells if cell.usable}
    if not running:
        return Best(size, cells, params, None, (), none=elsewhere)
    best = max(running.values(), key=lambda cell: metric.sign * cell.mean_val)
    val_spread = stats.pooled([cell.val for cell in running.values()])
    tied = stats.ties({m: cell.val for m, cell in running.items()}, best.magnitude, val_spread)
    spread = stats.pooled([cell.test for cell in running.values()])
    none = running.get(NONE) or elsewhere
    compared = [*running.values(), *([none] if none and NONE not in running else [])]
    both = stats.pooled([cell.test for cell in compared])
    return Best(
        size,
        cells,
        params,
        best,
        tuple(sorted(tied, key=magnitude_key)),  # type: ignore[arg-type]
        smooth_optimum(list(running.values()), val_spread, metric) if optima else None,
        best.mean_test,
        stats.half_width(spread, len(best.test)),
        metric.sign * (best.mean_test - none.mean_test) if none else math.nan,
        stats.half_width(both, len(best.test), len(none.test))
        if none and none is not best
        else math.nan,
        spread,
        none=none,
    )


def smooth_optimum(cells: Sequence[Cell], spread: stats.Spread, metric: Metric) -> Optimum | None:
    """Where between the magnitudes these cells of one size would be best on validation."""
    from analysis.optimum import optimum

    curve = [cell for cell in cells if cell.magnitude != NONE]
    return optimum(
        [float(cell.magnitude) for cell in curve],
        [metric.sign * cell.mean_val for cell in curve],
        [len(cell.val) for cell in curve],
        spread,
    )


def warnings(frame: pd.DataFrame) -> list[str]:
    """What a reader must know of these rows: unfinished, diverged, made in different ways."""
    found = []
    done = frame[frame["state"] == "done"]
    counts = frame["state"].value_counts()
    if len(done) < len(frame):
        rest = ", ".join(f"{n} {state}" for state, n in counts.items() if state != "done")
        found.append(f"{len(done)} of {len(frame)} trials are done ({rest})")
    for column in MIXED:
        if _differs(done, column):
            known = sorted(map(str, done[column].dropna().unique()))
            values = flat(", ".join([*known, *(["unknown"] * done[column].hasnans)]))
            found.append(f"the rows differ in {column}: {values}")
    if "flags" in done.columns:
        flagged = sum(bool(words) and words == words for words in done["flags"])
        if flagged:
            found.append(f"{flagged} trials changed code, packages or machine along their path")
    return found


callable_module(__name__)

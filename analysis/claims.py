"""The claims of the study, tested on a sweep's rows: effect, interval, p-value and a verdict.

python -m analysis.claims grid=quickstart          # on the screen; also format=latex, markdown, ...
python -m analysis.claims rows=rows.csv where="dataset == 'cifar10'" unequal_budgets=true
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from analysis import render
from analysis.best import METRICS, NONE, TOP1, Metric, follows, mean_counts, size_columns, warnings
from analysis.budgets import Untestable, check_budget, longer_paths, unequal_work
from analysis.effects import (
    Effect,
    Test,
    beats,
    difficulty_orders,
    optimum_moves,
    surplus_helps,
)
from analysis.rows import load
from analysis.stats import holm, seeds_to_settle
from harness.arguments import Option, split_options
from harness.errors import command
from harness.verb import callable_module

if TYPE_CHECKING:
    import pandas as pd

OPTIONS = {
    "rows": Option(),
    "by": Option(list, example="width,sparsity"),
    "where": Option(),
    "metric": Option(default="top1", choices=METRICS),
    "format": Option(default="screen", choices=render.FORMATS),
    "unequal_budgets": Option(bool, default=False),
}
LEVEL = 0.05
SIZES = ("width", "depth", "params_total")
"""What A1 orders sizes by: the first of these that varies among the dense trials."""
MOST_SEEDS = 1000  # beyond, "more than": an effect next to nothing


@dataclass(frozen=True)
class Claim:
    """A claim's test on one group of rows. A positive effect is in the direction predicted."""

    name: str  # A1 ... C2
    group: str  # "dataset cifar10, family cifar_resnet"; empty for all rows
    verdict: str  # supported, contradicted, undecided, not tested
    reason: str  # what was compared, or why nothing was
    effect: Effect | None = None
    p: float = math.nan  # adjusted by Holm over the groups of the claim
    seeds: float = math.nan  # per cell, that would settle an effect of this size
    done: int = 0  # trials of the group that are done
    trials: int = 0


def claims(
    frame: pd.DataFrame,
    metric: Metric = TOP1,
    unequal_budgets: bool = False,
    by: Sequence[str] | None = None,
    names: Iterable[str] | None = None,
) -> list[Claim]:
    """The verdicts of all claims, or `names`; a line per group (data set, family, and so on).

    `by` says what a size is, and with its numbers what A1 orders sizes by. Arms of unequal budget
    are not compared unless told to.
    """
    found: list[Claim] = []
    for name in names or PREDICTED:
        lines = list(_tested(name, frame, metric, unequal_budgets, by))
        adjusted = holm([_p(line) if not _is_control(line) else math.nan for line in lines])
        tests = sum(not math.isnan(p) for p in adjusted)
        found += [_judged(line, p, tests) for line, p in zip(lines, adjusted, strict=True)]
    return found


def _is_control(line: Claim) -> bool:
    return line.effect is not None and line.effect.control


def _p(line: Claim) -> float:
    return line.effect.p if line.effect else math.nan


def _tested(
    name: str, frame: pd.DataFrame, metric: Metric, unequal: bool, by: Sequence[str] | None
) -> Iterator[Claim]:
    """Per group of rows: the effect, not yet judged, or why there is none."""
    select, test = TESTS[name]
    try:
        rows, columns = select(frame, by)
    except Untestable as reason:
        yield replace(Claim(name, "", "not tested", str(reason)), **_counts(frame))
        return
    for key, part in _parts(rows, _outer(rows, columns, by)):
        group = ", ".join(f"{n} {render.number(None if v != v else v)}" for n, v in key.items())
        try:
            alike = columns if name in ("A1", "A2") else [n for n in columns if n == "epochs"]
            # A1 compares sizes; a path to more sparsity is longer, which A2 can only tell
            told = "" if unequal else check_budget(part, alike[:-1] if name == "A1" else alike)
            told += longer_paths(part) if name == "A2" else ""
            if name != "B":  # whose forms are told one by one
                told += unequal_work(part, alike)
            for effect in test(part, columns, metric):
                line = Claim(name, group, "undecided", effect.compared + told, effect)
                yield replace(line, **_counts(part))
        except Untestable as reason:
            yield replace(Claim(name, group, "not tested", str(reason)), **_counts(part))


def _counts(rows: pd.DataFrame) -> dict[str, Any]:
    return {"done": int((rows["state"] == "done").sum()), "trials": len(rows)}


def _outer(rows: pd.DataFrame, columns: Sequence[str], by: Sequence[str] | None) -> list[str]:
    """Axes that part the rows into groups; numbers that only follow the size (zip) do not."""
    sizes = size_columns(rows, by)
    axes = [n for n in sizes if n not in columns and rows[n].nunique(dropna=False) > 1]
    arms = [name for name in columns if name != "epochs"]
    return [n for n in axes if rows[n].dtype.kind not in "if" or not follows(rows, n, arms)]


def _parts(rows: pd.DataFrame, columns: Sequence[str]) -> list[tuple[dict[str, Any], pd.DataFrame]]:
    if not columns:
        return [({}, rows)]
    groups = rows.groupby(list(columns), dropna=False, sort=True)
    return [(dict(zip(columns, key, strict=True)), part) for key, part in groups]


def _judged(line: Claim, p: float, tests: int) -> Claim:
    """The verdict: significant after Holm's correction, and in which direction."""
    effect = line.effect
    if effect is None:
        return line
    if effect.control:
        return replace(line, verdict="control", p=effect.p)
    if p < LEVEL and effect.doubt:  # which more seeds of these magnitudes may never settle
        return replace(line, p=p, reason=f"{line.reason}; {effect.doubt}")
    line = replace(line, seeds=seeds_to_settle(effect.estimate, effect.seeds, tests))
    if math.isnan(p):
        return replace(line, reason=f"{line.reason}; one seed says nothing of the noise")
    decided = "supported" if effect.estimate.effect > 0 else "contradicted"
    return replace(line, verdict=decided if p < LEVEL else "undecided", p=p)


# --- which rows a claim is about, and the columns that it compares ------------------------------

Selection = tuple["pd.DataFrame", list[str]]
Select = Callable[["pd.DataFrame", "Sequence[str] | None"], Selection]


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    """Without magnitude schedules, surplus and dense-long controls."""
    for column, usual in (("schedule", "constant"), ("surplus", NONE)):
        if column in frame.columns:
            frame = frame[frame[column].isna() | (frame[column] == usual)]
    return frame[frame["dense_long"].isna()] if "dense_long" in frame.columns else frame


def _dense_sizes(frame: pd.DataFrame, by: Sequence[str] | None) -> Selection:
    rows = _plain(frame)
    if "sparsity" in rows.columns:
        rows = rows[rows["sparsity"].isna() | (rows["sparsity"] == 0)]
    rows = mean_counts(rows, by or ())
    numbers = [n for n in by or () if n in rows.columns and rows[n].dtype.kind in "if"]
    for name in (*numbers, *SIZES):
        if name in rows.columns and rows[name].nunique() > 1:
            return rows, [name]
    raise Untestable("it needs dense trials of at least two sizes")


def _sparsities(frame: pd.DataFrame, by: Sequence[str] | None) -> Selection:
    rows, columns = _differing("sparsity")(mean_counts(_plain(frame), by or ()), by)
    rows = _continued(rows)
    return rows, [*(name for name in ("width", "depth") if name in rows.columns), *columns]


def _continued(rows: pd.DataFrame) -> pd.DataFrame:
    """Without dense trainings of another length than those that the pruned paths go on from.

    These are shorter than any path; of several, the longest. Where one sparsity was reached by
    paths of several lengths, nothing tells which dense training belongs to which.
    """
    if "epochs" not in rows.columns:
        return rows
    dense, pruned = rows[rows["sparsity"] == 0], rows[rows["sparsity"] > 0]
    lengths = sorted(dense["epochs"].dropna().unique())
    if len(lengths) < 2 or not follows(pruned, "epochs", ["sparsity"]):
        return rows
    shorter = [length for length in lengths if length < pruned["epochs"].min()]
    return rows[(rows["sparsity"] > 0) | rows["epochs"].isin(shorter[-1:])]


def _differing(name: str) -> Select:
    def select(frame: pd.DataFrame, _: Sequence[str] | None) -> Selection:
        if name not in frame.columns or frame[name].nunique() < 2:
            raise Untestable(f"it needs rows that differ in the column `{name}`")
        return frame[frame[name].notna()], [name]

    return select


def _difficulties(frame: pd.DataFrame, by: Sequence[str] | None) -> Selection:
    rows, columns = _differing("difficulty")(frame, by)
    spaces = [name for name in ("policy", "calibrated") if name in rows.columns]
    return rows, [*spaces, *columns]


def _calibrations(frame: pd.DataFrame, by: Sequence[str] | None) -> Selection:
    """Spaces, which are policies of their own; no policy at all is neither kind."""
    rows, columns = _differing("calibrated")(frame, by)
    named = [name for name in ("policy",) if name in rows.columns]
    return rows[rows["magnitude"] != NONE], [*columns, *named]


def _surplus(frame: pd.DataFrame, by: Sequence[str] | None) -> Selection:
    """Arms of other epochs stand apart: longer ones are controls of equal multiply-adds."""
    rows, columns = _differing("surplus")(frame, by)
    return rows, [*columns, *(["epochs"] if "epochs" in size_columns(rows) else [])]


def _schedule_kind(value: Any) -> str:
    """Rising and shuffled schedules have the mean of a falling one and do not follow sparsity."""
    return value if value in ("constant", "rising", "shuffled") else "varying"


def _calibration_kind(value: Any) -> str:  # CSV and Parquet differ about booleans
    return "calibrated" if str(value).lower() in ("true", "1", "1.0") else "uncalibrated"


PREDICTED = {
    "A1": "the best magnitude rises with size",
    "A2": "the best magnitude falls with sparsity",
    "A3": "a magnitude that follows the sparsity beats the best constant one",
    "B": "strong augmentation harms less with additional parameters",
    "C1": "what a teacher finds difficult lowers accuracy",
    "C2": "a space calibrated by difficulty beats the uncalibrated one",
}
TESTS: dict[str, tuple[Select, Test]] = {
    "A1": (_dense_sizes, optimum_moves(1)),
    "A2": (_sparsities, optimum_moves(-1)),
    "A3": (_differing("schedule"), beats(_schedule_kind, "varying", "constant")),
    "B": (_surplus, surplus_helps),
    "C1": (_difficulties, difficulty_orders),
    "C2": (
        _calibrations,
        beats(_calibration_kind, "calibrated", "uncalibrated", _calibration_kind),
    ),
}


# --- the table ----------------------------------------------------------------------------------


def table(found: Sequence[Claim], warnings: Sequence[str], metric: Metric = TOP1) -> render.Table:
    """A line per claim and group."""
    rows = []
    for line in found:
        estimate = line.effect.estimate if line.effect else None
        shown = replace(metric, scale=1.0, digits=2) if line.name == "C1" else metric
        rows.append(
            (
                line.name,
                line.group or "-",
                render.interval(estimate.effect, estimate.half, shown, True) if estimate else "-",
                render.p_value(line.p),
                _seeds(line.seeds),
                line.verdict,
                f"{line.done} of {line.trials}",
                line.reason,
            )
        )
    return render.Table(
        ("claim", "group", "effect", "p", "seeds to settle", "verdict", "trials", "compared"),
        tuple(rows),
        "The claims tested on these rows.",
        (
            *(f"{name}: {says}." for name, says in PREDICTED.items()),
            *_notes(found, metric),
            *warnings,
        ),
        name="claims",
        strong="verdict",
    )


def _notes(found: Sequence[Claim], metric: Metric) -> list[str]:
    counts = [line.effect.seeds for line in found if line.effect and line.effect.seeds > 0]
    spread = f"{min(counts):.3g}" if counts else "no"
    if counts and f"{max(counts):.3g}" != spread:
        spread += f" to {max(counts):.3g}"
    unit = "points of top-1" if metric.name == "top1" else "nats"
    return [
        f"effect: positive as predicted, in {unit} (A1, A2: change, from one size to the next, of "
        "the slope over the whole scale of magnitudes; C1: a rank correlation); ± is half of a "
        f"95 % t interval with a standard deviation per size; {spread} seeds per cell.",
        "A1, A2: linear-by-linear interaction of size rank and magnitude (primary); a verdict "
        "also needs magnitudes chosen on validation that move its way, for slopes may differ "
        "while one magnitude is best everywhere.",
        "A3, B, C: exploratory. A3, C2: best arms chosen on validation, compared on test, p times "
        "the ratio of the numbers of arms; control: a schedule of the same mean that does not "
        "follow the sparsity, p uncorrected. B: the least of a form's effects, against none and "
        "against its controls.",
        "p: Holm over the groups of a claim; supported or contradicted below 0.05. seeds to "
        "settle: per cell, for 80 % power if the effect is as large as it looks, corrected alike; "
        "C1 is settled by more policies, not seeds. trials: of the group, that are done.",
    ]


def _seeds(seeds: float) -> str:
    if math.isnan(seeds):
        return "-"
    return f"{seeds:.0f}" if seeds <= MOST_SEEDS else f">{MOST_SEEDS}"


def usage() -> str:
    """The help text: the command and what each claim predicts."""
    claims = [f"  {name:<3} {prediction}" for name, prediction in PREDICTED.items()]
    return "\n".join([str(__doc__), *claims])


def main(args: list[str]) -> int:
    """The command."""
    from analysis.table import selected

    rest, options = split_options(args, OPTIONS)
    metric = METRICS[options["metric"]]
    frame = selected(load(rest, options["rows"]), options["where"])
    found = claims(frame, metric, options["unequal_budgets"], options["by"])
    print(render.show(table(found, warnings(frame), metric), options["format"]))
    return 0


callable_module(__name__)
if __name__ == "__main__":
    command(main, usage)

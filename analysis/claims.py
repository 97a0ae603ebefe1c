"""The claims of the study, tested on a sweep's rows: effect, interval, p-value and a verdict.

python -m analysis.claims grid=quickstart          # on the screen; also format=latex, markdown, ...
python -m analysis.claims rows=rows.csv where="dataset == 'cifar10'" unequal_budgets=true
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from analysis.cells import groups_of, is_determined, planned, size_columns
from analysis.claim_arms import A3, C2, C3
from analysis.claim_base import Claim, Effect, Untestable, path_lengths
from analysis.claim_difficulty import C1
from analysis.claim_optimum import A1, A2, L
from analysis.claim_strength import B1
from analysis.claim_surplus import B2
from analysis.claim_target import NEEDED, R
from analysis.columns import TOP1, Metric
from analysis.commands import TABLE_OPTIONS, read_request, show, with_label
from analysis.provenance import setting, warnings
from analysis.render import (
    Column,
    Table,
    format_interval,
    format_p,
    format_score,
    format_seeds,
    format_value,
    in_unit,
    requested,
)
from harness.arguments import Option
from harness.errors import command
from harness.statistics import ALPHA, NO_ESTIMATE, Estimate, detectable, holm

OPTIONS = {**TABLE_OPTIONS, "unequal_budgets": Option(bool, default=False)}
CLAIMS = {claim.name: claim for claim in (A1, A2, A3, B1, B2, C1, C2, C3, L, R)}
NUMBERS = {
    "effect": ("effect", "effect_low", "effect_high"),
    "trials": ("done", "trials"),
}
"""For these columns, CSV holds other or several numbers."""
DRIFT = (
    "how far the best magnitude on validation moves from one {step} to the next, on the scale of "
    "magnitudes (none is 0), and its 95 % interval; p is the probability that it does not move in "
    "this direction (one-sided: below 0.05 the interval may still hold 0)."
)
NOTES = {
    ("A1", "A2"): DRIFT.format(step="size"),
    ("L",): DRIFT.format(step="length of training"),
    ("R",): "how far the best magnitude on corrupted validation images lies above that on clean "
    "ones, mean over sizes, on the scale of magnitudes (none is 0), with its 95 % interval; p is "
    "the probability that it does not lie above.",
    ("A3", "C2", "C3"): "exploratory. The best arms, chosen on validation, are compared on test; "
    "the interval and p allow for that choice. Control: p uncorrected.",
    ("B1",): "the lesser of the two changes; both must hold.",
    ("B2",): "exploratory. The least of a form's effects, against none and against its controls; "
    "it must also beat none itself.",
    ("C1",): "exploratory. A rank correlation at equal magnitude and its 95 % interval; more "
    "policies, not more seeds, settle it.",
}
"""How to read the results of claims."""


@dataclass(frozen=True)
class ClaimResult:
    """A claim's test on one group of rows. A positive effect is in the predicted direction."""

    claim: str  # A1 ... R
    group: str  # "dataset cifar10, family cifar_resnet"; empty for all rows
    verdict: str  # supported, contradicted, undecided, control, not tested
    effect: Effect | None = None
    p: float = math.nan  # adjusted by Holm over the groups of the claim
    detectable: float = math.nan  # true effect that these seeds would find with 80 % power
    done: int = 0  # completed trials of the group
    trials: int = 0  # of the group, without those that were ruled out
    compared: str = ""  # what was compared, or why nothing was

    @property
    def estimate(self) -> Estimate:
        """The estimate of the effect; of NaN where it was not tested."""
        return self.effect.estimate if self.effect else NO_ESTIMATE


def claims(
    frame: pd.DataFrame,
    metric: Metric = TOP1,
    unequal_budgets: bool = False,
    by: Sequence[str] | None = None,
    names: Iterable[str] | None = None,
) -> list[ClaimResult]:
    """Return the verdicts of all claims, or of `names`; one per group (data set, family, ...).

    By default R is left out where no result is evaluated on corrupted images.

    `by`: the columns that define a size; A1 orders sizes by the first ordered one that varies. Arms
    of unequal budgets are compared only with `unequal_budgets`.
    """
    results: list[ClaimResult] = []
    is_evaluated = NEEDED in frame.columns and bool(frame[NEEDED].notna().any())
    for name in names or (name for name in CLAIMS if name != R.name or is_evaluated):
        tested = list(_test_groups(CLAIMS[name], frame, metric, unequal_budgets, by))
        effects = [result.effect for result in tested]
        adjusted = holm([e.p if e and not e.is_control else math.nan for e in effects])
        tests = sum(not math.isnan(p) for p in adjusted)
        results += [_judge(result, p, tests) for result, p in zip(tested, adjusted, strict=True)]
    return results


def _test_groups(
    claim: Claim,
    frame: pd.DataFrame,
    metric: Metric,
    unequal_budgets: bool,
    by: Sequence[str] | None,
) -> Iterator[ClaimResult]:
    """Yield a result for each effect of each group, without verdict; or why it cannot be tested."""

    def result(rows: pd.DataFrame, group: str, verdict: str, text: str) -> ClaimResult:
        rows = planned(rows)
        done = int((rows["state"] == "done").sum())
        return ClaimResult(claim.name, group, verdict, done=done, trials=len(rows), compared=text)

    try:
        rows, columns = claim.select(frame, by)
    except Untestable as error:
        yield result(frame, "", "not tested", str(error))
        return
    for key, part in groups_of(rows, _group_columns(claim, rows, columns, by)):
        group = ", ".join(f"{name} {format_value(value)}" for name, value in key.items())
        try:
            notes = "" if unequal_budgets else claim.check_budget(part, columns)
            notes += path_lengths(part, rows) + claim.describe_cost(part, columns)
            for effect in claim.test(part, columns, metric):
                tested = result(part, group, "undecided", effect.compared + notes)
                yield replace(tested, effect=effect)
        except Untestable as error:
            yield result(part, group, "not tested", str(error))


def _group_columns(
    claim: Claim, rows: pd.DataFrame, columns: Sequence[str], by: Sequence[str] | None
) -> list[str]:
    """Return the axes that divide the rows into groups: those that the claim does not compare.

    Numeric axes that only follow the size, or the length of dense trials (`zip` in a grid), do not
    divide them. Of pruned paths the sparsity follows the length, and does.
    """
    axes = [
        name
        for name in size_columns(rows, by)
        if name not in columns and rows[name].nunique(dropna=False) > 1
    ]
    compared = [name for name in columns if name != "epochs" or claim.unit == "drift"]
    return [
        name
        for name in axes
        if rows[name].dtype.kind not in "if" or not is_determined(rows, name, compared)
    ]


def _judge(result: ClaimResult, p: float, tests: int) -> ClaimResult:
    """Return the result with its verdict, from the p-value after Holm's correction and the sign."""
    effect = result.effect
    if effect is None:
        return result
    if effect.is_control:
        return replace(result, verdict="control", p=effect.p)
    unit = CLAIMS[result.claim].unit
    could_find = detectable(effect.estimate, tests, sides=1 if unit == "drift" else 2)
    if unit == "correlation":  # the error is that of Fisher's z
        could_find = math.tanh(could_find)
    result = replace(result, p=p, detectable=could_find)
    if math.isnan(p):
        why = f"{result.compared}; one seed gives no estimate of the noise"
        return replace(result, compared=why)
    if not p < ALPHA:
        return result
    if effect.doubt:
        return replace(result, compared=f"{result.compared}; no verdict: {effect.doubt}")
    if effect.estimate.effect > 0:
        return replace(result, verdict="supported")
    if CLAIMS[result.claim].refutable:
        return replace(result, verdict="contradicted")
    return replace(result, compared=f"{result.compared}; the opposite does not refute the claim")


def claims_table(
    results: Sequence[ClaimResult],
    extra_notes: Sequence[str],
    metric: Metric = TOP1,
    settings: str = "",
    columns: Sequence[str] | None = None,
) -> Table:
    """Return the table of verdicts, a row per claim and group, and a note on those not tested.

    `settings` are what all trials have in common. `columns` are those that the user asks for; by
    default columns without content are left out. CSV has a row for every result.
    """
    tested = [result for result in results if result.effect]
    untested = [result for result in results if not result.effect]
    available = _columns(tested, untested, metric)
    shown = requested(available, columns)
    return Table.of(
        shown,
        available if columns is None else shown,
        caption=f"The claims of the study, tested on these rows{settings and f': {settings}'}.",
        notes=(*_notes(tested, metric), *_reasons(untested), *extra_notes),
        name="claims",
        strong="verdict",
    )


def _columns(
    tested: Sequence[ClaimResult], untested: Sequence[ClaimResult], metric: Metric
) -> list[Column]:
    """Return every column. Results that were not tested are in the numbers (CSV) only.

    If nothing was tested, one row of cells says so.
    """
    numbers = [_numbers_of(result, metric) for result in (*tested, *untested)]

    def column(
        name: str, header: str, cell_of: Callable[[ClaimResult], str], is_shown: bool | None = None
    ) -> Column:
        cells = [cell_of(result) for result in tested or untested[:1]]
        keys = NUMBERS.get(name, (name,))
        held = {key: [of_result[key] for of_result in numbers] for key in keys}
        has_content = any(cell != "-" for cell in cells)
        return Column(name, header, cells, held, has_content if is_shown is None else is_shown)

    has_gaps = any(result.done < result.trials for result in tested)
    return [
        column("claim", "claim", lambda r: r.claim if tested else "all", True),
        column("group", "group", lambda r: r.group or "-"),
        column("effect", "effect", lambda r: format_effect(r, metric)),
        column("p", "p", lambda r: format_p(r.p)),
        column("detectable", "could find", lambda r: format_score(r.detectable, _unit(r, metric))),
        column("verdict", "verdict", lambda r: r.verdict, True),
        column("trials", "completed trials", lambda r: f"{r.done} of {r.trials}", has_gaps),
        column("compared", "what was compared", lambda r: r.compared, True),
    ]


def _numbers_of(result: ClaimResult, metric: Metric) -> dict[str, Any]:
    unit, estimate = _unit(result, metric), result.estimate
    numbers = {
        "effect": estimate.effect,
        "effect_low": estimate.low,
        "effect_high": estimate.high,
        "detectable": result.detectable,
    }
    return vars(result) | {name: in_unit(value, unit) for name, value in numbers.items()}


def format_effect(result: ClaimResult, metric: Metric) -> str:
    """Return the effect with its interval, in the unit of the claim."""
    unit, estimate = _unit(result, metric), result.estimate
    if unit == metric or math.isnan(estimate.low):
        return format_interval(estimate.effect, estimate.half, unit, signed=True)
    low, high = (format_score(value, unit, signed=True) for value in (estimate.low, estimate.high))
    return f"{format_score(estimate.effect, unit, signed=True)} ({low}, {high})"


def _unit(result: ClaimResult, metric: Metric) -> Metric:
    """Return how the effect is shown; a drift and a correlation are not results."""
    is_result = CLAIMS[result.claim].unit == "result"
    return metric if is_result else replace(metric, scale=1.0, digits=2)


def _reasons(untested: Sequence[ClaimResult]) -> list[str]:
    """Return the note, if any, on the claims that were not tested, and why."""
    claims_of: dict[str, list[str]] = {}
    for result in untested:
        group = f" at {result.group}" if result.group else ""
        claims_of.setdefault(result.compared, []).append(f"{result.claim}{group}")
    texts = [f"{', '.join(names)} ({reason})" for reason, names in claims_of.items()]
    return [f"Not tested: {'; '.join(texts)}."] if texts else []


def _notes(tested: Sequence[ClaimResult], metric: Metric) -> list[str]:
    """Return how to read the results, of the claims that were tested."""
    if not tested:
        return []
    names = {result.claim for result in tested}
    statements = [
        f"{claim.name}: {claim.statement}." for claim in CLAIMS.values() if claim.name in names
    ]
    seeds = format_seeds([result.effect.seeds for result in tested if result.effect])
    explained = [f"{', '.join(of)}: {note}" for of, note in NOTES.items() if names & {*of}]
    return [
        *statements,
        f"Effect: positive as predicted, in {metric.difference_unit}; ± is half of a 95 % t "
        f"interval, {seeds} per cell; it covers the seeds, not the finite test set.",
        *explained,
        "p: Holm over the groups of a claim; supported or contradicted below 0.05. Could find: the "
        "true effect that these seeds find with 80 % power. Testing again after each further "
        "seed finds effects that are not there.",
    ]


def usage() -> str:
    """Return the help text: the command and what each claim predicts."""
    claims = [f"  {name:<3} {claim.statement}" for name, claim in CLAIMS.items()]
    return "\n".join([str(__doc__), *claims])


def main(args: list[str]) -> int:
    """Print the table of verdicts."""
    request = read_request(args, OPTIONS)
    frame, metric = request.frame, request.metric
    options, notes = request.options, warnings(frame, request.by)
    results = claims(frame, metric, options["unequal_budgets"], request.by)
    table = claims_table(results, notes, metric, setting(frame), options["columns"])
    print(show(with_label(table, frame, options["label"]), options["format"]))
    return 0


if __name__ == "__main__":
    command(main, usage)

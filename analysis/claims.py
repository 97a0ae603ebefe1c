"""The claims of the study, tested on a sweep's rows: effect, interval, p-value and a verdict.

python -m analysis.claims grid=quickstart          # on the screen; also format=latex, markdown, ...
python -m analysis.claims rows=rows.csv where="dataset == 'cifar10'" unequal_budgets=true
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from analysis.cells import groups_of, is_determined, size_columns
from analysis.claim_arms import A3, C2, C3
from analysis.claim_base import Claim, Effect, Untestable
from analysis.claim_difficulty import C1
from analysis.claim_optimum import A1, A2
from analysis.claim_strength import B1
from analysis.claim_surplus import B2
from analysis.columns import TOP1, Metric
from analysis.commands import FORMAT, ROW_OPTIONS, read_request, show
from analysis.provenance import warnings
from analysis.render import Table, format_interval, format_p, format_score, format_value
from harness.arguments import Option
from harness.errors import command
from harness.statistics import ALPHA, NO_ESTIMATE, detectable, holm

OPTIONS = {**ROW_OPTIONS, "format": FORMAT, "unequal_budgets": Option(bool, default=False)}
CLAIMS = {claim.name: claim for claim in (A1, A2, A3, B1, B2, C1, C2, C3)}


@dataclass(frozen=True)
class ClaimResult:
    """A claim's test on one group of rows. A positive effect is in the direction predicted."""

    claim: str  # A1 ... C3
    group: str  # "dataset cifar10, family cifar_resnet"; empty for all rows
    verdict: str  # supported, contradicted, undecided, control, not tested
    effect: Effect | None = None
    p: float = math.nan  # adjusted by Holm over the groups of the claim
    detectable: float = math.nan  # true effect that these seeds would find with 80 % power
    done: int = 0  # completed trials of the group
    trials: int = 0
    compared: str = ""  # what was compared, or why nothing was


def claims(
    frame: pd.DataFrame,
    metric: Metric = TOP1,
    unequal_budgets: bool = False,
    by: Sequence[str] | None = None,
    names: Iterable[str] | None = None,
) -> list[ClaimResult]:
    """Return the verdicts of all claims, or of `names`; one per group (data set, family, ...).

    `by` says what a size is; its numeric columns are also what A1 orders sizes by. Arms of unequal
    budgets are compared only with `unequal_budgets`.
    """
    results: list[ClaimResult] = []
    for name in names or CLAIMS:
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
    """Yield for each group of rows the effects, without verdict yet, or why there are none."""

    def result(rows: pd.DataFrame, group: str, verdict: str, reason: str) -> ClaimResult:
        done = int((rows["state"] == "done").sum())
        return ClaimResult(claim.name, group, verdict, done=done, trials=len(rows), compared=reason)

    try:
        rows, columns = claim.select(frame, by)
    except Untestable as reason:
        yield result(frame, "", "not tested", str(reason))
        return
    for key, part in groups_of(rows, _group_columns(rows, columns, by)):
        group = ", ".join(f"{name} {format_value(value)}" for name, value in key.items())
        try:
            notes = "" if unequal_budgets else claim.check_budget(part, columns)
            notes += claim.describe_cost(part, columns)
            for effect in claim.test(part, columns, metric):
                untested = result(part, group, "undecided", effect.compared + notes)
                yield replace(untested, effect=effect)
        except Untestable as reason:
            yield result(part, group, "not tested", str(reason))


def _group_columns(
    rows: pd.DataFrame, columns: Sequence[str], by: Sequence[str] | None
) -> list[str]:
    """Return the axes that divide the rows into groups: those that the claim does not compare.

    Numeric axes that only follow the size (`zip` in a grid) do not divide them.
    """
    axes = [
        name
        for name in size_columns(rows, by)
        if name not in columns and rows[name].nunique(dropna=False) > 1
    ]
    compared = [name for name in columns if name != "epochs"]
    return [
        name
        for name in axes
        if rows[name].dtype.kind not in "if" or not is_determined(rows, name, compared)
    ]


def _judge(result: ClaimResult, p: float, tests: int) -> ClaimResult:
    """Return the result with its verdict: significant after Holm's correction, and which way."""
    effect = result.effect
    if effect is None:
        return result
    if effect.is_control:
        return replace(result, verdict="control", p=effect.p)
    result = replace(result, p=p, detectable=detectable(effect.estimate, tests))
    if math.isnan(p):
        why = f"{result.compared}; one seed gives no estimate of the noise"
        return replace(result, compared=why)
    if not p < ALPHA:
        return result
    if effect.doubt:
        return replace(result, compared=f"{result.compared}; {effect.doubt}")
    if effect.estimate.effect > 0:
        return replace(result, verdict="supported")
    if CLAIMS[result.claim].refutable:
        return replace(result, verdict="contradicted")
    return replace(result, compared=f"{result.compared}; the opposite does not refute the claim")


def claims_table(
    results: Sequence[ClaimResult], extra_notes: Sequence[str], metric: Metric = TOP1
) -> Table:
    """Return the table of verdicts, a row per claim and group."""
    return Table(
        ("claim", "group", "effect", "p", "could find", "verdict", "trials", "compared"),
        tuple(_row(result, metric) for result in results),
        "The claims tested on these rows.",
        (
            *(f"{claim.name}: {claim.statement}." for claim in CLAIMS.values()),
            *_notes(results, metric),
            *extra_notes,
        ),
        name="claims",
        strong="verdict",
    )


def _row(result: ClaimResult, metric: Metric) -> tuple[str, ...]:
    if CLAIMS[result.claim].unit != "result":
        metric = replace(metric, scale=1.0, digits=2)
    estimate = result.effect.estimate if result.effect else NO_ESTIMATE
    return (
        result.claim,
        result.group or "-",
        format_interval(estimate.effect, estimate.half, metric, signed=True),
        format_p(result.p),
        format_score(result.detectable, metric),
        result.verdict,
        f"{result.done} of {result.trials}",
        result.compared,
    )


def _notes(results: Sequence[ClaimResult], metric: Metric) -> list[str]:
    counts = [result.effect.seeds for result in results if result.effect]
    counts = [count for count in counts if count > 0]
    seeds = f"{min(counts):.3g}" if counts else "no"
    if counts and f"{max(counts):.3g}" != seeds:
        seeds += f" to {max(counts):.3g}"
    unit = "points of top-1" if metric.name == "top1" else "nats"
    return [
        f"effect: positive as predicted, in {unit} (A1, A2: change, from one size to the next, of "
        "the slope over the whole scale of magnitudes; C1: a rank correlation); ± is half of a "
        f"95 % t interval with a standard deviation per size; {seeds} seeds per cell.",
        "A1, A2: linear-by-linear interaction of size rank and magnitude (primary); a verdict "
        "also needs magnitudes chosen on validation that move in the same direction, because "
        "slopes may differ while one magnitude is best everywhere.",
        "A3, B, C: exploratory. A3, C2: the best arms, chosen on validation, are compared on test; "
        "p is multiplied by the ratio of the numbers of arms; control: a schedule of the same mean "
        "that does not follow the sparsity, p uncorrected. B: the least of a form's effects, "
        "against none and against its controls.",
        "p: Holm over the groups of a claim; supported or contradicted below 0.05. seeds to "
        "settle: per cell, for 80 % power if the true effect is as large as this estimate, with "
        "the same correction; more policies, not more seeds, settle C1. trials: completed trials "
        "of the group.",
    ]


def usage() -> str:
    """Return the help text: the command and what each claim predicts."""
    claims = [f"  {name:<3} {claim.statement}" for name, claim in CLAIMS.items()]
    return "\n".join([str(__doc__), *claims])


def main(args: list[str]) -> int:
    """Print the table of verdicts."""
    request = read_request(args, OPTIONS)
    frame, metric = request.frame, request.metric
    results = claims(frame, metric, request.options["unequal_budgets"], request.by)
    print(show(claims_table(results, warnings(frame), metric), request.options["format"]))
    return 0


if __name__ == "__main__":
    command(main, usage)

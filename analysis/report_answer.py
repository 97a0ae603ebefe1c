"""The answer at the top of the report: best magnitudes, verdicts, and what is still open."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import pandas as pd

from analysis import drawing
from analysis.best import SizeResult, magnitudes_of
from analysis.cells import planned
from analysis.claims import CLAIMS, ClaimResult, format_effect
from analysis.columns import NONE, Metric
from analysis.figure_text import with_lengths
from analysis.render import counted, format_count, format_interval, format_p, format_value
from analysis.report_source import Source
from harness.states import FINISHED
from harness.statistics import ALPHA

MOST_SENTENCES = 12  # for sizes, and for claims
MOST_TIES = 6  # named in a sentence
MORE_SEEDS = (
    "Twice the seeds make intervals about 30 % narrower. Decide on the number of seeds before you "
    "look: testing again after each further seed finds effects that are not there."
)
FULL_GRID = (
    "The rule of the sweep (settle) trains no more where a difference would be within its "
    "tolerance. To train the trials that it ruled out, too:"
)


def best_magnitudes(results: Sequence[SizeResult], metric: Metric) -> list[str]:
    """Return a sentence for each size, up to a limit."""
    sized = with_lengths(results)
    names = drawing.names_of(sized) if sized else []
    sentences = [
        _best(name, result, metric)
        for name, result in zip(names[:MOST_SENTENCES], results, strict=False)
    ]
    if len(results) > MOST_SENTENCES:
        sentences.append(f"{len(results) - MOST_SENTENCES:,} more sizes are in the table below.")
    return sentences


def _best(name: str, result: SizeResult, metric: Metric) -> str:
    best = result.best
    params = "" if result.params is None else f" ({format_count(result.params)} parameters)"
    if best is None:
        return f"{name}{params}: no magnitude has a usable result."
    is_none = best.magnitude == NONE
    what = "no augmentation" if is_none else f"magnitude {format_value(best.magnitude)}"
    accuracy = format_interval(result.test, result.test_half, metric)
    text = f"{what} is best, {accuracy} {metric.unit} on test"
    if not is_none and not math.isnan(result.gain):
        gain = format_interval(result.gain, result.gain_half, metric, signed=True)
        text += f" ({gain} {metric.difference_unit} against none)"
    end = ". It is the highest magnitude of the grid" if _is_at_end(result) else ""
    return f"{name}{params}: {text}; {_rivals(result, best.magnitude)}{end}{_ruled_out(result)}."


def _ruled_out(result: SizeResult) -> str:
    """Return how many magnitudes were not trained because the sweep's rule left them out."""
    count = len(result.ruled_out)
    if not count:
        return ""
    verb = "was" if count == 1 else "were"
    return f". {counted(count, 'more magnitude')} {verb} ruled out without a training"


def _rivals(result: SizeResult, best: float | str) -> str:
    """Return which magnitudes are statistically indistinguishable from the best."""
    others = [format_value(magnitude) for magnitude in result.ties if magnitude != best]
    usable = [cell for cell in result.cells if cell.is_usable]
    if len(usable) < 2:
        return "no other magnitude has a usable result"
    if all(len(cell.val) == 1 for cell in usable):
        return "with one seed it cannot be distinguished from the other magnitudes"
    if not others:
        return "every other magnitude is significantly worse on validation"
    if len(others) == len(usable) - 1:
        return "every other magnitude is statistically indistinguishable from it"
    more = f" and {len(others) - MOST_TIES} more" if len(others) > MOST_TIES else ""
    shown = ", ".join(others[:MOST_TIES])
    return f"statistically indistinguishable from it: {shown}{more}"


def _is_at_end(result: SizeResult) -> bool:
    """Return whether the best magnitude is the highest, so that a higher one may be better."""
    highest = max((m for m in magnitudes_of([result]) if m != NONE), default=1.0)
    return result.best is not None and result.best.magnitude == highest and float(highest) < 1


def verdicts(claims: Sequence[ClaimResult], metric: Metric) -> list[str]:
    """Return a sentence for each claim and group that was tested, and one for all others."""
    tested = [result for result in claims if result.effect]
    sentences = [_verdict(result, metric) for result in tested[:MOST_SENTENCES]]
    if len(tested) > MOST_SENTENCES:
        sentences.append(f"{len(tested) - MOST_SENTENCES:,} more are in the table of the claims.")
    untested = dict.fromkeys(result.claim for result in claims if not result.effect)
    if untested:
        sentences.append(f"Not tested, because these rows lack the trials: {', '.join(untested)}.")
    return sentences


def _verdict(result: ClaimResult, metric: Metric) -> str:
    group = f", {result.group}" if result.group else ""
    p = "" if math.isnan(result.p) else f", p {format_p(result.p).replace('<', '< ')}"
    return (
        f"{result.claim} ({CLAIMS[result.claim].statement}){group}: {result.verdict}, effect "
        f"{format_effect(result, metric)}{p}; {result.compared}."
    )


def open_questions(
    frame: pd.DataFrame,
    results: Sequence[SizeResult],
    claims: Sequence[ClaimResult],
    source: Source,
) -> str:
    """Return as HTML what is open, each point with the command that would settle it."""
    parts = []
    for sentence, overrides in _open(frame, results, claims):
        sweeps = [] if overrides is None else source.sweeps
        commands = [source.launch(name, *overrides or ()) for name in sweeps]
        if not source.sweeps and overrides:
            sentence += f" Add {' '.join(overrides)} to the command that launched the sweep."
        code = f"<pre>{escape(chr(10).join(commands))}</pre>" if commands else ""
        parts.append(f"<li>{escape(sentence)}{code}</li>")
    if not parts:
        return (
            "<p>Nothing: every trial has its result, every size has one best magnitude, and every "
            "claim that was tested has a verdict.</p>"
        )
    return f"<ul>{''.join(parts)}</ul>"


def _named(claim: ClaimResult) -> str:
    return f"{claim.claim} ({claim.group})" if claim.group else claim.claim


def _why_seeds_do_not_help(claim: ClaimResult) -> str:
    """Return why more seeds do not decide an undecided claim; empty where they may."""
    if claim.effect and claim.effect.doubt and claim.p < ALPHA:
        return claim.effect.doubt
    return "it needs more policies" if CLAIMS[claim.claim].unit == "correlation" else ""


class OpenPoint(NamedTuple):
    """What is open, and how a launch would settle it."""

    sentence: str
    overrides: list[str] | None = None  # of the launch; empty: as before; None: no launch helps


def _open(
    frame: pd.DataFrame, results: Sequence[SizeResult], claims: Sequence[ClaimResult]
) -> list[OpenPoint]:
    points = []
    chosen = planned(frame)
    missing = int((~chosen["state"].isin(FINISHED)).sum())
    if missing:
        sentence = f"{missing:,} of {len(chosen):,} trials have no result. To train them:"
        points.append(OpenPoint(sentence, []))
    undecided = [claim for claim in claims if claim.verdict == "undecided"]
    reasons_against = {claim: why for claim in undecided if (why := _why_seeds_do_not_help(claim))}
    names = dict.fromkeys(c.claim for c in undecided if c not in reasons_against)
    tied = sum(len(result.ties) > 1 for result in results)
    seeds = sorted({int(seed) for seed in frame["seed"]})
    if names or tied:
        reasons = []
        if names:
            reasons.append(f"Undecided: {', '.join(names)}.")
        if tied:
            reasons.append(f"At {tied:,} of {len(results):,} sizes several magnitudes may be best.")
        doubled = [*seeds, *range(seeds[-1] + 1, seeds[-1] + 1 + len(seeds))]
        advice, override = MORE_SEEDS, f"axes.seed=[{','.join(map(str, doubled))}]"
        if len(chosen) < len(frame):
            advice, override = FULL_GRID, "settle=false"
        points.append(OpenPoint(" ".join([*reasons, advice]), [override]))
    points += [
        OpenPoint(f"{_named(claim)} would not be settled by more seeds: {why}.")
        for claim, why in reasons_against.items()
    ]
    unjudged = sum(result.has_unjudged_divergence for result in results)
    if unjudged:
        sentence = (
            f"At {unjudged:,} of {len(results):,} sizes trainings diverged at magnitudes that may "
            "be best; the mean of their other seeds would be too high."
        )
        points.append(OpenPoint(sentence))
    ends = sum(_is_at_end(result) for result in results)
    if ends:
        levels = dict.fromkeys([*map(format_value, magnitudes_of(results)), "1"])
        sentence = (
            f"At {ends:,} of {len(results):,} sizes the highest magnitude is best, so a higher one "
            "may be better."
        )
        points.append(OpenPoint(sentence, [f"axes.magnitude=[{','.join(levels)}]"]))
    return points

"""Claim B2: strong augmentation harms less with additional parameters (the surplus)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import pandas as pd

from analysis.cells import Cell, cells_per_size, difference_on_test, size_columns
from analysis.claim_base import (
    Claim,
    Effect,
    Selection,
    Untestable,
    check_budget,
    compare_work,
    effect_of,
    mean_work,
    rows_that_differ,
    ruled_out_beyond,
)
from analysis.columns import NONE, Metric
from analysis.render import format_interval, format_value
from harness.compress.surplus import FORMS
from harness.statistics import ALPHA, Estimate, contrast

SIMILAR_WORK = 1.5  # ratio of multiply-adds up to which a longer `none` is a control of equal work


class Arm(NamedTuple):
    """A form of surplus, and the epochs of its trials where the sweep's arms differ in them."""

    form: Any
    epochs: float | None = None

    def __str__(self) -> str:
        if self.epochs is None:
            return str(self.form)
        return f"{self.form} of {format_value(self.epochs)} epochs"


CellsOfArm = Mapping[float | str, Cell]  # by magnitude


class Comparison(NamedTuple):
    """The interaction of a form of surplus with one of its controls."""

    control: str
    estimate: Estimate
    cells: list[Cell]


def _surplus(frame: pd.DataFrame, _by: Sequence[str] | None) -> Selection:
    """Select the arms; those of other epochs are separate: controls of equal multiply-adds."""
    rows = rows_that_differ(frame, "surplus")
    return rows, ["surplus", *(["epochs"] if "epochs" in size_columns(rows) else [])]


def surplus_helps(rows: pd.DataFrame, columns: list[str], metric: Metric) -> list[Effect]:
    """Return for each form what strong augmentation changes with surplus, minus without it.

    A form has to do better than `none`, than its own control (`Form.control_of`), and than a longer
    `none` of as many multiply-adds, wherever these are in the rows. All of this must hold, so the
    least of the effects is the form's (an intersection-union test). A form that is worse everywhere
    may lose less to strength; so a form must also beat `none` at the strong magnitude, and not stay
    below `none` at the weak one.
    """
    arms: dict[Arm, CellsOfArm] = {}
    ruled_out: dict[Arm, list[Cell]] = {}
    for size, cells, _ in cells_per_size(rows, columns, metric):
        arm = Arm(size["surplus"], size.get("epochs"))
        arms[arm] = {cell.magnitude: cell for cell in cells if cell.is_usable}
        ruled_out[arm] = [cell for cell in cells if cell.is_ruled_out]
    work = {Arm(*key): macs for key, macs in mean_work(rows, columns).items()}
    effects = []
    control_forms = _control_forms().values()
    for arm in arms:
        if arm.form == NONE or arm.form in control_forms:
            continue
        plain = Arm(NONE, arm.epochs)
        shared = [m for m in arms.get(plain, {}) if m in arms[arm]]
        if len(shared) >= 2:
            ends = shared[0], shared[-1]
            effect = _effect_of_form(arms, arm, ends, work, metric)
            left_out = ruled_out_beyond(ends, [*ruled_out[plain], *ruled_out[arm]])
            doubts = "; ".join(filter(None, (effect.doubt, left_out)))
            effects.append(replace(effect, doubt=doubts))
    if not effects:
        raise Untestable("it needs two magnitudes, each with surplus and without (`none`)")
    return effects


def _effect_of_form(
    arms: Mapping[Arm, CellsOfArm],
    arm: Arm,
    ends: tuple[float | str, float | str],
    work: Mapping[Arm, float],
    metric: Metric,
) -> Effect:
    """Return the least favourable of the form's effects against each of its controls.

    `ends` are the weakest and the strongest magnitude that the form shares with `none`.
    """
    weak, strong = ends
    controls = _controls(arm, arms, work)
    finished = [control for control in controls if {weak, strong} <= set(arms[control])]
    comparisons = [
        _compare(arms[arm], arms[control], str(control), ends, metric) for control in finished
    ]
    agree = len({comparison.estimate.effect > 0 for comparison in comparisons}) == 1
    if agree:  # NaN, of one seed, counts as the least certain
        least = max(comparisons, key=lambda c: (math.isnan(c.estimate.p), c.estimate.p))
    else:
        least = min(comparisons, key=lambda c: c.estimate.effect)
    magnitudes = f"magnitude {format_value(weak)} to {format_value(strong)}"
    text = f"{arm.form} against {least.control}, {magnitudes}"
    for other in comparisons:
        if other.control != least.control:
            estimate = other.estimate
            shown = format_interval(estimate.effect, estimate.half, metric, signed=True)
            text += f"; against {other.control} {shown}"
    named_controls = [(str(control), control) for control in controls]
    text += compare_work((str(arm.form), arm), named_controls, work)
    unfinished = [control for control in controls if control not in finished]
    doubts = [f"its control {control} is not done" for control in unfinished]
    if not agree:
        doubts.append("the effects against its controls differ in sign")
    if least.estimate.effect > 0:
        doubts += _shortfalls(arms[arm][strong], arms[Arm(NONE, arm.epochs)], ends, metric)
    return replace(effect_of(least.estimate, least.cells, text), doubt="; ".join(doubts))


def _shortfalls(
    form: Cell, plain: CellsOfArm, ends: tuple[float | str, float | str], metric: Metric
) -> list[str]:
    """Return in what the form at the strong magnitude does not beat the plain model."""
    texts = []
    for magnitude in dict.fromkeys(reversed(ends)):
        other = plain[magnitude]
        estimate = difference_on_test(form, other, (), metric)
        is_clear = estimate.p < ALPHA
        if magnitude == ends[1]:
            fails = not (is_clear and estimate.effect > 0)
        else:
            fails = is_clear and estimate.effect < 0
        if fails:
            shown = format_interval(estimate.effect, estimate.half, metric, signed=True)
            texts.append(f"{shown} against none at {format_value(magnitude)}")
    return texts


def _control_forms() -> dict[str, str]:
    """Return the control of each form that has one, by the name of the form."""
    forms = map(FORMS.get, FORMS.names())
    return {form.control_of: form.name for form in forms if form.control_of is not None}


def _controls(arm: Arm, arms: Mapping[Arm, CellsOfArm], work: Mapping[Arm, float]) -> list[Arm]:
    """Return `none`, the control of the form's schedule, and a longer `none` of similar work."""
    controls = [Arm(NONE, arm.epochs), Arm(_control_forms().get(arm.form), arm.epochs)]
    if arm in work:
        longer = [
            (abs(math.log(work[other] / work[arm])), other)
            for other in arms
            if other.form == NONE and other.epochs != arm.epochs and other in work
        ]
        if longer and min(longer)[0] < math.log(SIMILAR_WORK):
            controls.append(min(longer)[1])
    return [control for control in controls if control in arms]


def _compare(
    form: CellsOfArm,
    control: CellsOfArm,
    name: str,
    ends: tuple[float | str, float | str],
    metric: Metric,
) -> Comparison:
    """Return the interaction: (strong - weak) of the form minus (strong - weak) of the control.

    Cells of the same runs (arms that share their stages) count once.
    """
    weak, strong = ends
    signed = [(1, form[strong]), (-1, form[weak]), (-1, control[strong]), (1, control[weak])]
    weights: dict[Any, float] = {}
    cells: dict[Any, Cell] = {}
    for position, (sign, cell) in enumerate(signed):
        key = cell.stages or position
        weights[key] = weights.get(key, 0.0) + metric.sign * sign
        cells[key] = cell
    estimate = contrast([[(weight, cells[key].test) for key, weight in weights.items()]])
    return Comparison(name, estimate, [cell for _, cell in signed])


B2 = Claim(
    name="B2",
    statement="strong augmentation harms less with additional parameters",
    select=_surplus,
    test=surplus_helps,
    check_budget=lambda rows, columns: check_budget(rows, columns[1:]),  # within equal epochs
    describe_cost=lambda _rows, _columns: "",  # each effect says it of its own arms
)

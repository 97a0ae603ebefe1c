"""What arms cost to train: comparisons of unequal budgets are refused, unequal work is told.

A budget is epochs and examples, along the whole path of stages. Multiply-adds are no budget:
arms that take more of them per example (a teacher, additional parameters) say so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from analysis.render import number

if TYPE_CHECKING:
    import pandas as pd

BUDGETS = ("epochs", "examples")
SLACK = 0.01  # share by which the budgets of compared arms may differ
WORK_SLACK = 0.1  # masks of one sparsity differ in multiply-adds by some per cent


class Untestable(Exception):
    """Why a claim cannot be tested on these rows."""


def check_budget(rows: pd.DataFrame, within: Sequence[str]) -> str:
    """Raise Untestable where arms that agree in `within` were trained for different lengths.

    What the rows do not tell is the answer, empty where they tell it.
    """
    done = rows[rows["state"] == "done"]
    known = [name for name in BUDGETS if name in done.columns and done[name].notna().any()]
    for name in known:
        if not done[name].max() > (1 + SLACK) * done[name].min():
            continue  # nor then do any that agree in `within`
        bounds = _bounds(done, within, name)
        apart = bounds[bounds["max"] > (1 + SLACK) * bounds["min"]]
        if len(apart):
            low, high = apart.iloc[0][["min", "max"]]
            raise Untestable(
                f"unequal budgets, {low:g} to {high:g} {name}: "
                "unequal_budgets=true compares all the same"
            )
    return "" if known or done.empty else "; budgets unknown: no column epochs or examples"


def longer_paths(rows: pd.DataFrame) -> str:
    """By how much the paths to the sizes of one claim differ in epochs, where they do."""
    done = rows[rows["state"] == "done"]
    if "epochs" not in done.columns or not done["epochs"].notna().any():
        return ""
    low, high = done["epochs"].min(), done["epochs"].max()
    return f"; paths of {low:g} to {high:g} epochs" if high > (1 + SLACK) * low else ""


def unequal_work(rows: pd.DataFrame, within: Sequence[str]) -> str:
    """How far arms that agree in `within` differ in multiply-adds of training, where they do."""
    done = rows[rows["state"] == "done"]
    if "train_macs" not in done.columns or not done["train_macs"].max() > 0:
        return ""
    bounds = _bounds(done[done["train_macs"] > 0], within, "train_macs")
    most = float((bounds["max"] / bounds["min"]).max())
    return f"; multiply-adds differ up to {most:.1f} x" if most > 1 + WORK_SLACK else ""


def _bounds(done: pd.DataFrame, within: Sequence[str], name: str) -> pd.DataFrame:
    import pandas as pd

    if within:
        return done.groupby(list(within), dropna=False, sort=False)[name].agg(["min", "max"])
    return pd.DataFrame({"min": [done[name].min()], "max": [done[name].max()]})


def work(rows: pd.DataFrame, columns: Sequence[str]) -> dict[tuple[Any, float | None], float]:
    """Mean multiply-adds of training by surplus and epochs (None where not among `columns`)."""
    done = rows[rows["state"] == "done"]
    if "train_macs" not in done.columns:
        return {}
    means = done.groupby(list(columns), dropna=False)["train_macs"].mean()
    keys = [key if isinstance(key, tuple) else (key,) for key in means.index]
    arms = [(key[0], key[1] if key[1:] else None) for key in keys]
    return {arm: float(m) for arm, m in zip(arms, means, strict=True) if m > 0}


def more_work(arms: Sequence[tuple[str, Any]], spent: Mapping[Any, float]) -> str:
    """How many times the multiply-adds of each other arm the first takes, where they differ."""
    (name, first), *others = arms
    found = ""
    for other, arm in others:
        if first in spent and arm in spent:
            ratio = spent[first] / spent[arm]
            if not 1 / (1 + WORK_SLACK) <= ratio <= 1 + WORK_SLACK:
                found += (
                    f"; {name} takes {number(float(f'{ratio:.2g}'))} x the multiply-adds of {other}"
                )
    return found

"""Numbers as the text of a table's cells."""

from __future__ import annotations

import math
from typing import Any

from analysis.columns import TOP1, Metric, on_one_line
from harness.statistics import Optimum


def format_score(value: float, metric: Metric = TOP1, signed: bool = False) -> str:
    """Return `0.8213` as `82.1` (percent), a loss as it is, and NaN as `-`."""
    if math.isnan(value):
        return "-"
    return f"{metric.scale * value:{'+' if signed else ''}.{metric.digits}f}"


def format_interval(value: float, half: float, metric: Metric = TOP1, signed: bool = False) -> str:
    """Return `82.1 ± 0.4`; without the interval where there is none."""
    text = format_score(value, metric, signed)
    return text if math.isnan(half) or text == "-" else f"{text} ± {format_score(half, metric)}"


def format_p(p: float) -> str:
    """Return three decimals, `<0.001` for less, `-` for NaN."""
    return "-" if math.isnan(p) else "<0.001" if p < 0.001 else f"{p:.3f}"


def format_value(value: Any) -> str:
    """Return a size or magnitude as short text; a missing one as `-`."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, float):
        return f"{value:g}"
    return on_one_line(str(value))


def format_count(value: float | None) -> str:
    """Return `272474` as `272k`, in three digits."""
    if value is None:
        return "-"
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{float(f'{value / limit:.3g}'):g}{suffix}"
    return f"{value:.0f}"


def format_optimum(optimum: Optimum | None) -> str:
    """Return `0.41 (0.22, 0.60)`; an interval that reaches the grid's end as `≤0.2`, `≥0.8`."""
    if optimum is None:
        return "-"
    censored_below, censored_above = optimum.censored
    low = f"≤{optimum.ends[0]:g}" if censored_below else f"{optimum.low:.2f}"
    high = f"≥{optimum.ends[1]:g}" if censored_above else f"{optimum.high:.2f}"
    return f"{optimum.at:.2f} ({low}, {high})"

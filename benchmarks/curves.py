"""True curves of accuracy over magnitude, for the sizes of a simulated sweep."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Curve = Callable[[int, float], float]  # (size, magnitude) -> points of accuracy, from the top
Noise = Callable[[int, float], float]  # (size, magnitude) -> standard deviation, points


def parabola(left: Sequence[float], right: Sequence[float], optimum: float) -> Curve:
    """Return curves that lose `left[size]` points at 0.4 below the optimum, `right` above it."""
    return _curve(left, right, optimum, 2)


def kink(left: Sequence[float], right: Sequence[float], optimum: float) -> Curve:
    """Return curves that fall on straight lines from a kink at the optimum."""
    return _curve(left, right, optimum, 1)


def _curve(left: Sequence[float], right: Sequence[float], optimum: float, power: int) -> Curve:
    def curve(size: int, magnitude: float) -> float:
        depth = (left if magnitude < optimum else right)[size]
        return -depth * abs((magnitude - optimum) / 0.4) ** power

    return curve


def flat(_size: int, _magnitude: float) -> float:
    """Return the same accuracy everywhere."""
    return 0.0


def shifting(depth: float, optima: Sequence[float]) -> Curve:
    """Return parabolas whose optimum differs from size to size."""
    return lambda size, m: -depth * ((m - optima[size]) / 0.4) ** 2

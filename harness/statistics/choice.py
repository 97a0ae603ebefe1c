"""Which magnitude of one size is the best: the one choice of tables and of sweeps that settle.

A cell is the validation results of one magnitude over its seeds. The highest of noisy means is
partly luck. A smooth curve through all means (`loss`) uses the neighbours of a magnitude, too, and
loses less on curves that rise and then fall. Where the curve is of another kind, such as a cliff,
the data must overrule it: so only magnitudes that tie with the highest mean can be chosen.
`docs/analysis.md` has the losses of both choices.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from harness.statistics.estimates import Key, Spread, mean, ties
from harness.statistics.loss import losses
from harness.statistics.unimodal import FEWEST_MAGNITUDES


def choose(
    cells: Mapping[Key, Sequence[float]],
    places: Mapping[Key, float | None],
    noise: Mapping[Key, Spread],
    sign: int = 1,
) -> Key:
    """Return the key of the best cell: of those that tie with the highest mean, the lowest loss.

    The loss is the expected one on smooth curves through the means. `places` has the magnitude of
    each cell, in [0, 1], and None for `none`, which is not a point of the curve. Where there is no
    curve (`has_curve`), the highest mean is chosen. `sign` is 1 where higher results are better, -1
    where lower ones are.
    """
    highest = highest_mean(cells, noise, sign)
    tied = ties(cells, highest, noise, sign)
    if len(tied) == 1 or not has_curve([places[key] for key in cells], noise.values()):
        return highest
    expected = losses(
        [places[key] for key in cells],
        [sign * mean(cell) for cell in cells.values()],
        [noise[key].deviation / math.sqrt(len(cell)) for key, cell in cells.items()],
        min(spread.freedom for spread in noise.values()),
    ).mean
    # rounded, so that equal losses are equal on every machine, and the first of them is chosen
    loss_of = dict(zip(cells, expected.round(12).tolist(), strict=True))
    return min(tied, key=loss_of.__getitem__)


def has_curve(places: Collection[float | None], noise: Collection[Spread]) -> bool:
    """Return whether there is a curve: 3 magnitudes beside `none`, and noise that is known."""
    on_curve = sum(place is not None for place in places)
    return on_curve >= FEWEST_MAGNITUDES and all(spread.freedom for spread in noise)


def highest_mean(
    cells: Mapping[Key, Sequence[float]], noise: Mapping[Key, Spread], sign: int
) -> Key:
    """Return the key of the cell with the highest mean for `sign` 1, the lowest for -1.

    Where cells differ in their standard error, their means are first shrunk towards the overall
    mean, the more the larger their error is (Morris 1983), because the highest of noisy means owe
    most to luck. Of equal cells the first is returned.
    """
    means = {key: sign * mean(cell) for key, cell in cells.items()}
    variances = {key: noise[key].deviation ** 2 / len(cell) for key, cell in cells.items()}
    typical = mean(list(variances.values()))
    if len(set(variances.values())) == 1 or not typical > 0:  # NaN where the noise is unknown
        return max(means, key=means.__getitem__)
    # The variance of the true means is above 0, else all shrunk means would be equal.
    true = max(float(np.var(list(means.values()), ddof=1)) - typical, 0.05 * typical)
    weights = [1 / (true + variance) for variance in variances.values()]
    centre = float(np.average(list(means.values()), weights=weights))
    shrunk = {key: (means[key] - centre) * true / (true + variances[key]) for key in means}
    return max(shrunk, key=shrunk.__getitem__)

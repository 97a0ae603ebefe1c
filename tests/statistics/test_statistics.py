"""Statistics against the textbook, and against simulations of what they promise."""

import math
import random
import statistics

import pytest

from harness import statistics as stats
from harness.statistics import optimum, rank_correlation


def test_pooled_spread_and_interval_are_those_of_the_textbook():
    cells = [[0.1, 0.2, 0.3], [0.5, 0.7]]
    spread = stats.pooled(cells)
    assert spread.freedom == 3
    squares = 2 * statistics.variance(cells[0]) + statistics.variance(cells[1])
    assert spread.deviation == pytest.approx(math.sqrt(squares / 3))
    # t table: 0.975 quantile at 3 degrees of freedom is 3.182
    assert stats.half_width(spread, 3) == pytest.approx(3.1824463 * spread.deviation / math.sqrt(3))
    assert stats.t_quantile(0.95, 10) == pytest.approx(1.8124611)
    assert stats.t_tails(2.2281389, 10) == pytest.approx(0.05)


def test_a_contrast_of_two_groups_is_the_test_of_welch():
    from scipy.stats import ttest_ind

    a, b = [0.81, 0.83, 0.80, 0.85], [0.70, 0.79, 0.74]
    estimate = stats.contrast([[(1.0, a)], [(-1.0, b)]])
    expected = ttest_ind(a, b, equal_var=False)
    assert estimate.effect == pytest.approx(statistics.fmean(a) - statistics.fmean(b))
    assert estimate.p == pytest.approx(expected.pvalue)
    assert estimate.freedom == pytest.approx(expected.df)
    low, _ = expected.confidence_interval()
    assert estimate.effect - estimate.half == pytest.approx(low)


@pytest.mark.slow
def test_rank_correlation_is_that_of_scipy():
    from scipy.stats import permutation_test, spearmanr

    x = [1.0, 2.0, 2.0, 4.0, 5.0, 7.0, 7.5, 8.0, 9.0]
    y = [3.0, 1.0, 4.0, 4.0, 9.0, 8.0, 8.0, 2.0, 7.0]
    estimate, expected = rank_correlation(x, y), spearmanr(x, y)
    assert estimate.effect == pytest.approx(expected.statistic)
    assert estimate.p == pytest.approx(expected.pvalue)
    x, y = x[:7], y[:7]
    exact = permutation_test(
        (x,), lambda order: abs(spearmanr(order, y).statistic), permutation_type="pairings",
        n_resamples=math.inf, alternative="greater",
    )  # fmt: skip
    assert rank_correlation(x, y).p == pytest.approx(exact.pvalue)
    assert math.isnan(rank_correlation([1, 2, 3], [1, 2, 3]).effect)


@pytest.mark.parametrize("count", [5, 8, 9])
def test_a_perfect_order_has_the_chance_of_two_orders(count):
    estimate = rank_correlation(range(count), range(count))
    assert estimate.effect == pytest.approx(1)
    assert estimate.p == pytest.approx(2 / math.factorial(count))
    assert math.isnan(estimate.half)


@pytest.mark.slow
@pytest.mark.parametrize("count", [5, 6, 8, 12])
def test_noise_is_rarely_taken_for_a_rank_correlation(count):
    chance = random.Random(count)
    p_is_small = (
        rank_correlation(range(count), [chance.gauss(0, 1) for _ in range(count)]).p < 0.05
        for _ in range(500)
    )
    assert sum(p_is_small) / 500 < 0.07


def test_holm_is_that_of_the_paper():
    # sorted 0.01 0.02 0.03 0.04 times 4 3 2 1, never falling
    assert stats.holm([0.04, 0.01, math.nan, 0.03, 0.02]) == pytest.approx(
        [0.06, 0.04, math.nan, 0.06, 0.06], nan_ok=True
    )


def test_the_seeds_to_settle_an_effect_find_it_four_times_of_five():
    chance = random.Random(3)
    cells = [[chance.gauss(mean, 1) for _ in range(3)] for mean in [0.0] * 9 + [1.0]]
    seen = stats.contrast([[(1.0, cells[-1]), (-1.0, cells[0]), *((0.0, c) for c in cells[1:-1])]])
    exact = stats.Estimate(1.0, math.nan, math.nan, math.sqrt(2 / 3), seen.freedom)
    seeds = int(stats.seeds_to_settle(exact, 3))
    hits = 0
    for _ in range(500):
        a, b = ([chance.gauss(m, 1) for _ in range(seeds)] for m in (1.0, 0.0))
        hits += stats.contrast([[(1.0, a), (-1.0, b)]]).p < 0.05
    assert 0.75 <= hits / 500 <= 0.87
    assert stats.seeds_to_settle(exact, 3, tests=4) > seeds  # the level is shared by four
    few = stats.Estimate(1.0, math.nan, math.nan, 0.2, 2)  # two degrees of freedom are no normal
    assert stats.seeds_to_settle(few, 2) > math.ceil(2 * (2.8 * 0.2) ** 2)
    assert stats.seeds_to_settle(stats.Estimate(0.0, 1, 1, 1.0, 4), 3) == math.inf


def test_the_interval_covers_the_truth_as_often_as_it_says():
    chance, hits = random.Random(1), 0
    for _ in range(1000):
        cells = [[chance.gauss(0, 1) for _ in range(3)] for _ in range(5)]
        half = stats.half_width(stats.pooled(cells), 3)
        hits += abs(statistics.fmean(cells[0])) <= half
    assert 0.93 <= hits / 1000 <= 0.97


CURVES = {
    "parabola": (lambda m: -4 * (m - 0.5) ** 2, 0.5),
    "near the end": (lambda m: -4 * (m - 0.1) ** 2, 0.1),
    "beyond the end": (lambda m: -4 * (m - 1.3) ** 2, 1.0),
    "steep on one side": (lambda m: -2 * (m - 0.6) ** 2 * (1 if m < 0.6 else 6), 0.6),
    "flat on top": (lambda m: -8 * abs(m - 0.6) ** 3, 0.6),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CURVES)
def test_the_optimum_lies_in_its_interval(name):
    curve, truth = CURVES[name]
    magnitudes = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    chance, hits, widths = random.Random(name), 0, []
    for _ in range(500):
        cells = [[curve(m) + chance.gauss(0, 0.2) for _ in range(3)] for m in magnitudes]
        result = optimum(magnitudes, [stats.mean(c) for c in cells], [3] * 6, stats.pooled(cells))
        hits += result.low - 1e-9 <= truth <= result.high + 1e-9
        widths.append(result.high - result.low)
    assert hits / 500 >= 0.9
    assert statistics.fmean(widths) < 0.6


def test_an_optimum_at_the_end_of_the_grid_is_censored_and_never_beyond():
    rising = optimum([0.2, 0.5, 0.8], [0.7, 0.8, 0.9], [3] * 3, stats.Spread(0.01, 6))
    assert rising.censored == (False, True)
    assert rising.high == 0.8
    flat = optimum([0.2, 0.5, 0.8], [0.8, 0.8, 0.8], [3] * 3, stats.Spread(0.01, 6))
    assert flat.censored == (True, True)


def test_no_optimum_from_two_magnitudes_or_one_seed():
    assert optimum([0.2, 0.5], [0.7, 0.8], [3, 3], stats.Spread(0.01, 4)) is None
    assert optimum([0.2, 0.5, 0.8], [0.7, 0.8, 0.7], [1] * 3, stats.Spread(math.nan, 0)) is None

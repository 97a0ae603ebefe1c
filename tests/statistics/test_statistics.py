"""Statistics against the textbook, and against simulations of what they promise."""

import dataclasses
import math
import random
import statistics

import pytest

from harness import statistics as stats
from harness.statistics import rank_correlation


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
    assert -1 < estimate.low < estimate.effect < estimate.high < 1


def test_a_partial_rank_correlation_leaves_out_what_follows_from_a_third_series():
    given = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    own = [3, 1, 4, 1, 5, 9, 2, 6, 5]
    x = [10 * g + o for g, o in zip(given, own, strict=True)]
    y = [-10 * g + o for g, o in zip(given, own, strict=True)]
    assert rank_correlation(x, y, given).effect > 0.5
    assert math.isnan(rank_correlation(given, y, given).effect)
    levels = [0.2, 0.2, 0.2, 0.5, 0.5, 0.5]
    within = rank_correlation([1, 2, 3, 11, 12, 13], [5, 6, 7, 1, 2, 3], levels)
    assert within.effect == pytest.approx(1)


def test_pairs_of_one_group_count_as_one_pair():
    x, y = [1, 2, 3, 4, 5, 6, 7], [2, 1, 4, 3, 7, 5, 6]
    groups = [*"abcdefg"] * 3
    expected = rank_correlation(x, y)
    estimate = rank_correlation(x * 3, y * 3, groups=groups)
    assert (estimate.effect, estimate.p) == pytest.approx((expected.effect, expected.p))
    assert math.isnan(rank_correlation(x, y, groups=[*"aabbccd"]).effect)


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


def test_a_detectable_effect_is_found_four_times_of_five():
    chance = random.Random(3)
    error, freedom = math.sqrt(2 / 3), 20.0  # of two means of three seeds, noise 1
    exact = dataclasses.replace(stats.NO_ESTIMATE, error=error, freedom=freedom)
    effect, hits = stats.detectable(exact), 0
    for _ in range(500):
        other = [[chance.gauss(0, 1) for _ in range(3)] for _ in range(8)]
        a, b = ([chance.gauss(m, 1) for _ in range(3)] for m in (effect, 0.0))
        hits += stats.contrast([[(1.0, a), (-1.0, b), *((0.0, cell) for cell in other)]]).p < 0.05
    assert 0.75 <= hits / 500 <= 0.87
    assert stats.detectable(exact, tests=4) > effect  # the level is shared by four
    normal = dataclasses.replace(stats.NO_ESTIMATE, error=1.0, freedom=1e9)
    assert stats.detectable(normal, sides=1) == pytest.approx(1.645 + 0.842, abs=1e-3)
    assert stats.detectable(normal) == pytest.approx(1.960 + 0.842, abs=1e-3)
    chosen = stats.contrast([[(1.0, [0.1, 0.3]), (-1.0, [0.2, 0.3])]], choices=4)
    plain = stats.contrast([[(1.0, [0.1, 0.3]), (-1.0, [0.2, 0.3])]])
    assert stats.detectable(chosen) == pytest.approx(stats.detectable(plain, tests=4))
    assert math.isnan(stats.detectable(stats.NO_ESTIMATE))


def test_cells_of_equal_noise_share_a_spread_and_others_keep_part_of_theirs():
    quiet, loud = [0.80, 0.81, 0.79], [0.5, 0.9, 0.7]
    same = stats.spreads({"a": quiet, "b": [0.5, 0.51, 0.49], "one": [0.3]})
    assert len(set(same.values())) == 1
    assert same["one"].freedom == 4
    cells = dict.fromkeys("abcd", quiet) | dict.fromkeys("efgh", loud) | {"one": [0.3]}
    unequal = stats.spreads(cells)
    assert 0.01 <= unequal["a"].deviation < unequal["one"].deviation < unequal["e"].deviation <= 0.2
    assert 2 < unequal["a"].freedom < stats.pooled(list(cells.values())).freedom
    assert stats.spreads({"a": [0.1], "b": [0.2]})["a"] == stats.UNKNOWN
    assert stats.spreads({"a": [0.5, 0.5], "b": [0.2, 0.2]})["b"].deviation == 0


def test_seeds_that_agree_by_chance_are_no_sign_of_unequal_noise():
    cells = {at: [0.802, 0.804, 0.806] for at in range(7)} | {7: [0.804, 0.804, 0.804]}
    assert len(set(stats.spreads(cells).values())) == 1


def test_the_highest_of_noisy_means_is_distrusted():
    cells = {"sure": [0.80] * 6, "lucky": [0.81], "low": [0.79] * 6}
    noise = {key: stats.Spread(0.02, 12) for key in cells}
    assert stats.highest_mean(cells, noise, 1) == "sure"
    assert stats.highest_mean({k: v[:1] for k, v in cells.items()}, noise, 1) == "lucky"
    assert stats.highest_mean(cells, noise, -1) == "low"
    assert stats.highest_mean(cells, dict.fromkeys(cells, stats.UNKNOWN), 1) == "lucky"


def seeds_around(means, spread):
    return {m: [mean - spread, mean, mean + spread] for m, mean in means.items()}


def test_the_choice_uses_the_neighbours_of_a_magnitude():
    means = {m: 0.9 - 0.1 * (m - 0.35) ** 2 for m in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)}
    cells = seeds_around(means | {0.6: 0.9005}, 0.004)
    noise = stats.spreads(cells)
    places = {m: m for m in cells}
    assert stats.highest_mean(cells, noise, 1) == 0.6
    assert stats.choose(cells, places, noise) in (0.4, 0.5)
    losses = {m: [-value for value in cell] for m, cell in cells.items()}
    assert stats.choose(losses, places, noise, -1) == stats.choose(cells, places, noise)
    # two magnitudes, or one seed, have no curve
    two = {m: cells[m] for m in (0.4, 0.6)}
    assert stats.choose(two, places | {0.4: None}, stats.spreads(two)) == 0.6
    ones = {m: cell[1:2] for m, cell in cells.items()}
    assert stats.choose(ones, places, stats.spreads(ones)) == 0.6


def test_the_curve_cannot_choose_what_the_means_show_to_be_worse():
    means = {0.2: 0.86, 0.4: 0.90, 0.6: 0.86, 0.8: 0.82, 1.0: 0.91}
    cells = seeds_around(means, 0.002)
    errors = [0.002 / math.sqrt(3)] * len(cells)
    by_curve = stats.losses(list(means), list(means.values()), errors, 10)
    assert list(means)[by_curve.mean.argmin()] != 1.0
    assert stats.choose(cells, {m: m for m in cells}, stats.spreads(cells)) == 1.0


@pytest.mark.slow
def test_the_choice_loses_less_than_the_highest_mean():
    chance, lost, lost_by_mean = random.Random(8), 0.0, 0.0
    for _ in range(300):
        top = chance.uniform(0.2, 0.6)
        curve = {m: -(((m - top) / 0.4) ** 2) for m in GRID[:9]}
        cells = {m: [curve[m] + chance.gauss(0, 0.25) for _ in range(3)] for m in curve}
        noise = stats.spreads(cells)
        best = max(curve.values())
        lost += best - curve[stats.choose(cells, {m: m for m in cells}, noise)]
        lost_by_mean += best - curve[stats.highest_mean(cells, noise, 1)]
    assert lost < 0.75 * lost_by_mean  # about half of it is expected


def test_the_interval_covers_the_truth_as_often_as_it_says():
    chance, hits = random.Random(1), 0
    for _ in range(1000):
        cells = [[chance.gauss(0, 1) for _ in range(3)] for _ in range(5)]
        half = stats.half_width(stats.pooled(cells), 3)
        assert stats.half_width(stats.pooled(cells), 3, choices=5) > half
        hits += abs(statistics.fmean(cells[0])) <= half
    assert 0.93 <= hits / 1000 <= 0.97


def evidence_of(curve, magnitudes, chance=None, noise=0.2, seeds=3):
    """The evidence of one simulated size, in points of accuracy."""
    chance = chance or random.Random(0)
    cells = [[curve(m) + chance.gauss(0, noise) for _ in range(seeds)] for m in magnitudes]
    spread = stats.pooled(cells)
    errors = [spread.deviation / math.sqrt(seeds)] * len(cells)
    return stats.evidence(magnitudes, list(map(stats.mean, cells)), errors, spread.freedom)


GRID = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
CURVES = {
    "parabola": (lambda m: -4 * (m - 0.5) ** 2, 0.5),
    "near the end": (lambda m: -4 * (m - 0.1) ** 2, 0.1),
    "steep on one side": (lambda m: -2 * (m - 0.6) ** 2 * (1 if m < 0.6 else 6), 0.6),
    "kink": (lambda m: -3 * abs(m - 0.4), 0.4),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CURVES)
def test_the_optimum_lies_in_its_interval(name):
    curve, truth = CURVES[name]
    chance, hits, widths = random.Random(name), 0, []
    for _ in range(300):
        result = stats.optimum(evidence_of(curve, GRID, chance), (0.0, 1.0), (truth, truth))
        hits += result.low < truth < result.high
        widths.append(result.high - result.low)
    assert hits / 300 >= 0.9
    assert statistics.fmean(widths) < 0.6


def test_an_optimum_at_the_end_of_the_grid_is_censored_and_holds_its_bracket():
    rising = evidence_of(lambda m: 5 * m, [0.2, 0.5, 0.8])
    result = stats.optimum(rising, (0.2, 0.8), (0.5, 0.8))
    assert result.censored == (False, True)
    assert (result.at, result.high) == (0.8, 0.8)
    assert stats.optimum(rising, (0.2, 0.8), (0.2, 0.8)).low == 0.2
    flat = stats.optimum(evidence_of(lambda m: 0, [0.2, 0.5, 0.8]), (0.2, 0.8), (0.5, 0.5))
    assert flat.censored == (True, True)


def test_a_collapse_does_not_decide_where_the_optimum_of_the_others_is():
    def curve(m):
        return -4 * (m - 0.3) ** 2

    magnitudes = [0.1 * step for step in range(8)]
    means = [curve(m) for m in magnitudes]
    plain = stats.evidence(magnitudes, means, [0.1] * 8, 16)
    collapsed = stats.evidence(magnitudes, [*means[:-1], -30.0], [0.1] * 8, 16)
    ends = (0.0, 0.7)
    before, after = (stats.optimum(log, ends, (0.3, 0.3)) for log in (plain, collapsed))
    assert after.at == pytest.approx(before.at, abs=0.05)


def test_optima_that_rise_drift_and_a_common_one_does_not():
    optima = (0.2, 0.3, 0.4, 0.5)
    ranks = (-1.5, -0.5, 0.5, 1.5)
    magnitudes = [0.1 * step for step in range(8)]
    moving = [evidence_of(lambda m, o=o: -20 * (m - o) ** 2, magnitudes) for o in optima]
    drift = stats.drift(moving, ranks)
    assert drift.low < 0.1 < drift.high
    assert drift.rises > 0.99
    assert stats.drift(moving[::-1], ranks).falls > 0.99
    still = [evidence_of(lambda m: -20 * (m - 0.3) ** 2, magnitudes) for _ in optima]
    assert max((drift := stats.drift(still, ranks)).rises, drift.falls) < 0.95
    assert drift.low < 0 < drift.high


def test_no_optimum_from_two_magnitudes_or_one_seed():
    assert stats.evidence([0.2, 0.5], [0.7, 0.8], [0.1, 0.1], 4) is None
    assert stats.evidence([0.2, 0.5, 0.8], [0.7, 0.8, 0.7], [math.nan] * 3, 0) is None


def test_the_loss_of_two_magnitudes_follows_from_the_t_test():
    from scipy.integrate import quad
    from scipy.stats import t

    means, errors, freedom, margin = [0.80, 0.81], [0.004, 0.003], 6, 0.002
    result = stats.losses([0.0, 1.0], means, errors, freedom)
    # the lower one has the additional error of a curve that does not fit
    error = math.hypot(*errors, 0.2 * 0.01)
    lead = t(freedom, loc=0.01, scale=error)
    assert result.best[0] == pytest.approx(lead.cdf(0))
    assert result.exceeds(1, margin) == pytest.approx(lead.cdf(-margin))
    expected, _ = quad(lambda x: x * lead.pdf(x), 0, 1, points=[0.01])
    assert result.mean[0] == pytest.approx(expected, rel=1e-4)


def test_none_is_compared_with_the_highest_of_the_curve():
    errors = [0.001] * 4
    on_curve = [0.80, 0.82, 0.80]
    none = stats.losses([None, 0.2, 0.5, 0.8], [0.85, *on_curve], errors, 8)
    assert none.mean.argmin() == 0
    assert none.best[0] > 0.999
    assert none.mean[1:] == pytest.approx([0.05, 0.03, 0.05], abs=0.004)
    curve = stats.losses([None, 0.2, 0.5, 0.8], [0.70, *on_curve], errors, 8)
    alone = stats.losses([0.2, 0.5, 0.8], on_curve, errors[1:], 8)
    assert curve.mean.argmin() == 2
    assert curve.best[1:] == pytest.approx(alone.best)
    assert curve.mean[1:] == pytest.approx(alone.mean)
    assert curve.exceeds(2, 0.003) == pytest.approx(alone.exceeds(1, 0.003))


def test_a_magnitude_without_results_is_judged_by_the_curve():
    nan = math.nan
    means, errors = [0.78, 0.80, nan, 0.80, 0.78], [0.002, 0.002, nan, 0.002, 0.002]
    result = stats.losses([0.1, 0.3, 0.5, 0.7, 0.9], means, errors, 8)
    assert result.mean.argmin() == 2
    assert result.best.sum() == pytest.approx(1)
    assert result.exceeds(1, 0.003) > result.exceeds(2, 0.003)


@pytest.mark.slow
def test_the_probability_of_a_loss_is_that_of_curves_of_the_family():
    chance, freedom, errors = random.Random(4), 8, [0.002] * 6
    lost = predicted = 0.0
    for _ in range(300):
        top, depth = chance.random(), chance.uniform(0.0, 0.04)
        curve = [-depth * ((m - top) / 0.4) ** 2 for m in GRID[:6]]
        noise = math.sqrt(sum(chance.gauss(0, 1) ** 2 for _ in range(freedom)) / freedom)
        means = [value + chance.gauss(0, 0.002) for value in curve]
        result = stats.losses(GRID[:6], means, [error * noise for error in errors], freedom)
        choice = int(result.mean.argmin())
        lost += max(curve) - curve[choice] > 0.002
        predicted += result.exceeds(choice, 0.002)
    # four standard errors of a binomial number
    assert lost <= predicted + 4 * math.sqrt(predicted)

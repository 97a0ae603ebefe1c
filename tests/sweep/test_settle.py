"""The rule that chooses the trials of a sweep round by round: what it promises about the choice."""

import itertools
import random

import pytest

from harness.sweep.grid import Trial
from harness.sweep.settle import SettleConfig, settle

MAGNITUDES = ("none", 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
RULE = SettleConfig(within=0.3, seeds=(2, 10))


def trials(magnitudes=MAGNITUDES, seeds=10, sizes=(0.5, 1.0), excluded=lambda cell: False):
    cells = [
        {"width": width, "magnitude": magnitude, "seed": seed}
        for width, magnitude, seed in itertools.product(sizes, magnitudes, range(seeds))
    ]
    return [
        Trial("/".join(map(str, cell.values())), cell, config=None)
        for cell in cells
        if not excluded(cell)
    ]


def place(magnitude):
    return 0.0 if magnitude == "none" else magnitude


def parabola(depth, optimum):
    """A curve that loses `depth` points at 0.4 from its optimum."""
    return lambda size, magnitude: -depth * ((place(magnitude) - optimum) / 0.4) ** 2


def planted(grid, curve, noise=0.25, seed=0):
    """The results of all trials, where `curve` gives points of accuracy from the top."""
    chance = random.Random(seed)
    return {
        trial.id: 0.9
        + (curve(trial.cell["width"], trial.cell["magnitude"]) + chance.gauss(0, noise)) / 100
        for trial in grid
    }


def rounds(grid, rule, results):
    """The rounds of a sweep that knows only the results of the rounds before."""
    known = {}
    while (state := settle(grid, rule, known)).round:
        yield state
        known |= {trial: results[trial] for trial in state.round}


def test_the_choice_depends_on_the_results_of_chosen_trials_only():
    grid = trials()
    results = planted(grid, parabola(1, 0.4))
    *_, last = rounds(grid, RULE, results)
    end = settle(grid, RULE, results)
    assert end.chosen == last.chosen
    assert not end.round
    shuffled = list(results)
    random.Random(1).shuffle(shuffled)
    assert settle(grid, RULE, {trial: results[trial] for trial in shuffled}) == end
    misleading = {trial: results[trial] if trial in end.chosen else 1.0 for trial in results}
    assert settle(grid, RULE, misleading) == end


def test_a_round_stays_the_same_until_all_its_trials_have_results():
    grid = trials()
    results = planted(grid, parabola(1, 0.4))
    first, second = itertools.islice(rounds(grid, RULE, results), 2)
    part = {trial: results[trial] for trial in first.round[:-1]}
    assert settle(grid, RULE, part).round == first.round
    assert settle(grid, RULE, results | {second.round[0]: None}).chosen >= second.chosen
    assert (first.number, second.number) == (1, 2)


def test_the_first_round_has_none_both_ends_and_the_first_seeds():
    state = settle(trials(sizes=[1.0]), RULE, {})
    expected = [f"1.0/{m}/{seed}" for m in ("none", 0.1, 0.3, 0.6, 1.0) for seed in (0, 1)]
    assert sorted(state.round) == sorted(expected)
    assert not state.ruled_out
    assert not state.sizes[0].is_settled


def test_a_peaked_curve_is_settled_by_a_quarter_of_the_full_grid():
    grid = trials()
    state = settle(grid, RULE, planted(grid, parabola(4, 0.4)))
    assert all(size.best in (0.3, 0.4, 0.5) for size in state.sizes)
    assert all({"none", 0.8, 1.0} <= set(size.ruled_out) for size in state.sizes)
    assert len(state.chosen) <= len(grid) / 4
    assert state.chosen | state.ruled_out == {trial.id for trial in grid}
    assert not state.chosen & state.ruled_out


def test_a_flat_curve_shows_no_difference():
    grid = trials(sizes=[1.0])
    state = settle(grid, RULE, planted(grid, lambda size, magnitude: 0.0, noise=0.1))
    (size,) = state.sizes
    assert size.is_settled
    assert not size.ruled_out
    assert size.reason.startswith("no difference beyond")
    assert len(state.chosen) < len(grid)


def test_no_trial_is_outside_the_grid_or_beyond_the_most_seeds():
    grid = trials(seeds=12, excluded=lambda c: c["width"] == 1.0 and c["magnitude"] == 0.4)
    state = settle(grid, RULE, planted(grid, parabola(0.3, 0.4), noise=2.0))
    assert state.chosen <= {trial.id for trial in grid}
    assert all(size.seeds[m] <= 10 for size in state.sizes for m in size.seeds)
    assert all(size.reason.startswith("its seeds are used up") for size in state.sizes)
    assert 0.4 in state.sizes[0].seeds
    assert 0.4 not in state.sizes[1].seeds
    assert {trial.id for trial in grid if trial.cell["seed"] > 9} <= state.ruled_out


def test_one_diverged_seed_is_open_and_two_rule_a_magnitude_out():
    grid = trials(sizes=[1.0])
    results = planted(grid, parabola(4, 0.4))
    once = settle(grid, RULE, results | {"1.0/0.3/0": None})
    assert once.sizes[0].best != 0.3
    twice = settle(grid, RULE, results | {"1.0/0.3/0": None, "1.0/0.3/1": None})
    assert 0.3 in twice.sizes[0].ruled_out
    assert {f"1.0/0.3/{seed}" for seed in range(2, 10)} <= twice.ruled_out


def test_one_seed_that_diverged_is_followed_by_a_second():
    grid = trials(magnitudes=(0.2, 0.4, 0.6), sizes=[1.0])
    rule = SettleConfig(within=0.3, seeds=(1, 5))
    results = planted(grid, parabola(4, 0.4)) | {"1.0/0.4/0": None}
    _, second = itertools.islice(rounds(grid, rule, results), 2)
    assert "1.0/0.4/1" in second.round


@pytest.mark.parametrize("magnitudes", [("none", 0.5), (0.2, 0.6), (0.2, 0.6, "none")])
def test_few_magnitudes_are_told_apart(magnitudes):
    grid = trials(magnitudes)
    curve = lambda size, m: -2.0 * (m != magnitudes[size == 1.0])  # noqa: E731
    state = settle(grid, RULE, planted(grid, curve))
    assert [size.best for size in state.sizes] == list(magnitudes[:2])
    assert len(state.chosen) < len(grid)


def test_a_size_with_one_magnitude_is_trained_at_once():
    grid = trials(excluded=lambda cell: cell["width"] == 0.5 and cell["magnitude"] != "none")
    state = settle(grid, RULE, {})
    assert sum(trial.startswith("0.5/") for trial in state.round) == 10


def test_one_seed_settles_nothing():
    grid = trials(sizes=[1.0])
    results = planted(grid, parabola(4, 0.4))
    _, second = itertools.islice(rounds(grid, SettleConfig(within=5, seeds=(1, 5)), results), 2)
    assert {trial[-1] for trial in second.round} == {"1"}
    once = settle(grid, SettleConfig(within=5, seeds=(1, 1)), results)
    assert len(once.chosen) == len(MAGNITUDES)
    assert "noise is not known" in once.sizes[0].reason


def test_equal_results_are_settled():
    grid = trials(sizes=[1.0])
    state = settle(grid, RULE, dict.fromkeys((trial.id for trial in grid), 0.5))
    assert state.sizes[0].is_settled
    assert len(state.chosen) == 18


def test_none_may_be_better_than_any_curve_through_the_others():
    grid = trials(sizes=[1.0])
    curve = lambda size, m: 1.0 if m == "none" else -4 * (m - 0.4) ** 2  # noqa: E731
    assert settle(grid, RULE, planted(grid, curve)).sizes[0].best == "none"


def test_seeds_go_to_the_magnitudes_that_may_be_the_best():
    grid = trials(sizes=[1.0])
    results = planted(grid, parabola(8, 0.4), noise=1.5)
    (size,) = settle(grid, SettleConfig(within=0.1, seeds=(2, 10)), results).sizes
    assert size.seeds[0.4] == 10
    assert max(size.seeds["none"], size.seeds[0.8], size.seeds[1.0]) <= 4


def test_a_size_is_judged_by_its_own_results():
    grid = trials()
    results = planted(grid, parabola(1, 0.4))
    other = results | {trial: 0.5 for trial in results if trial.startswith("0.5/")}
    first, second = (settle(grid, RULE, of_both) for of_both in (results, other))
    assert first.sizes[1] == second.sizes[1]
    assert first.sizes[0] != second.sizes[0]


def test_a_mean_far_above_the_choice_keeps_a_size_open():
    grid = trials(magnitudes=(0.2, 0.4, 0.6, 0.8, 1.0), sizes=[1.0])
    curve = lambda size, m: 1.0 if m == 1.0 else -20 * abs(m - 0.4)  # noqa: E731
    results = planted(grid, curve, noise=0.25)
    (size,) = settle(grid, RULE, results).sizes
    assert size.best == 1.0
    assert size.seeds[1.0] == 10

"""The best magnitude of planted truths; what is unfinished is shown, never averaged away."""

import math
import statistics

import numpy as np
import pandas as pd
import pytest

from analysis import render
from analysis.best import best_per_size
from analysis.columns import METRICS
from analysis.provenance import warnings
from analysis.table import best_table
from harness.errors import UserError


def test_the_planted_best_is_found_on_validation_and_reported_on_test(planted):
    table = planted()
    results = best_per_size(table)
    assert [line.best.magnitude for line in results] == [0.2, 0.5]
    for line, width in zip(results, (0.5, 2.0), strict=True):
        chosen = table[(table["width"] == width) & (table["magnitude"] == line.best.magnitude)]
        assert line.test == pytest.approx(chosen["test_top1"].mean())
        none = table[(table["width"] == width) & (table["magnitude"] == "none")]
        gain = chosen["test_top1"].mean() - none["test_top1"].mean()
        assert line.gain == pytest.approx(gain)


def test_the_table_says_how_the_best_was_chosen(planted):
    magnitudes = tuple(step / 10 for step in range(1, 8))
    means = tuple(0.9005 if m == 0.6 else 0.9 - 0.1 * (m - 0.35) ** 2 for m in magnitudes)
    frame = planted({1.0: means}, magnitudes=magnitudes, spread=0.0)
    frame["val_top1"] += 0.004 * (frame["seed"] - 1)
    (line,) = best_per_size(frame)
    means = {cell.magnitude: cell.mean_val for cell in line.cells}
    assert means[line.best.magnitude] < max(means.values())
    assert {line.best.magnitude, 0.6} <= set(line.ties)
    assert line.optimum.low <= line.best.magnitude <= line.optimum.high
    rule = "Best: lowest expected loss on the smooth curve through the validation means, among the"
    assert rule in " ".join(render.screen(best_table([line], [])).split())
    (line,) = best_per_size(planted({1.0: (0.8, 0.9)}, magnitudes=("none", 0.2)))
    assert "Best: highest mean on validation." in render.screen(best_table([line], []))


def test_sizes_by_length_have_a_title_in_english(planted):
    frame = pd.concat([planted(epochs=e, trial=None) for e in (10, 20)], ignore_index=True)
    title = best_table(best_per_size(frame, ["width", "epochs"]), []).caption
    assert title.startswith("Best augmentation magnitude for each width and number of epochs, ")


def test_test_numbers_take_part_in_no_choice(planted):
    table = planted()
    other = table.assign(test_top1=1.0 - table["test_top1"])
    for a, b in zip(best_per_size(table), best_per_size(other), strict=True):
        assert (a.best.magnitude, a.ties, a.optimum) == (b.best.magnitude, b.ties, b.optimum)


def test_the_order_of_rows_changes_nothing(planted):
    table = planted()
    mixed = table.sample(frac=1.0, random_state=1)
    assert best_per_size(mixed) == best_per_size(table)


@pytest.mark.slow
@pytest.mark.parametrize("means", [(0.800, 0.805, 0.803, 0.70), (0.8, 0.8, 0.8, 0.7)])
def test_ties_hold_the_true_best_and_let_clear_losers_go(planted, with_noise, means):
    chance, true = np.random.default_rng(0), planted({1.0: means}, spread=0.0)
    losers_kept = covered = 0
    for _ in range(500):
        line = best_per_size(with_noise(true, chance, 0.005), optima=False)[0]
        covered += 0.2 in line.ties
        losers_kept += 0.8 in line.ties
    assert covered / 500 >= 0.93
    assert losers_kept == 0


def test_one_seed_has_no_interval_and_everything_ties(planted):
    line = best_per_size(planted(seeds=1))[0]
    assert math.isnan(line.test_half)
    assert set(line.ties) == {"none", 0.2, 0.5, 0.8}
    assert line.optimum is None
    shown = render.screen(best_table([line], []))
    assert "±" not in shown
    assert "Ties: every magnitude, because one seed cannot show that one is worse." in shown


def test_one_size_with_one_magnitude_is_a_line(planted):
    line = best_per_size(planted({1.0: (0.8,)}, magnitudes=(0.2,)))[0]
    assert (line.best.magnitude, line.ties) == (0.2, (0.2,))
    assert math.isnan(line.gain)
    assert line.test_half > 0


def test_diverged_cells_cannot_win_and_missing_ones_are_shown(planted):
    table = planted()
    best = (table["width"] == 2.0) & (table["magnitude"] == 0.5)
    table.loc[best & (table["seed"] == 0), ["state", "val_top1", "test_top1"]] = [
        "diverged", math.nan, math.nan,
    ]  # fmt: skip
    lost = (table["width"] == 0.5) & (table["magnitude"] == "none") & (table["seed"] == 1)
    table.loc[lost, ["state", "val_top1", "test_top1"]] = ["waiting", math.nan, math.nan]
    small, large = best_per_size(table)
    assert large.best.magnitude != 0.5
    shown = render.screen(best_table([small, large], warnings(table)))
    assert "0.5: 1 diverged" in shown
    assert "none: 1 missing" in shown
    assert "22 of 24 trials are done" in shown


def test_a_size_in_which_every_magnitude_lost_a_seed_is_open(planted):
    table = planted()
    lost = (table["width"] == 2.0) & (table["seed"] == 0)
    table.loc[lost, ["state", "val_top1", "test_top1"]] = ["diverged", math.nan, math.nan]
    _, large = best_per_size(table)
    assert (large.best, large.open) == (None, ("none", 0.2, 0.5, 0.8))


@pytest.mark.parametrize("state", ["waiting", "diverged"])
def test_nothing_done_is_a_table_of_dashes(planted, state):
    table = planted().assign(state=state, val_top1=math.nan, test_top1=math.nan)
    shown = best_table(best_per_size(table), warnings(table))
    assert "0 of 24 trials are done" in render.screen(shown)
    assert {row[shown.header.index("best magnitude")] for row in shown.rows} == {"-"}


def test_rows_made_in_different_ways_are_flagged(planted):
    table = planted()
    table.loc[3, "engine"] = "ddp"
    table["flags"] = ""
    table.loc[4, "flags"] = "mixed_code"
    messages = " ".join(warnings(table))
    assert "the rows differ in engine: ddp, deepspeed" in messages
    assert "1 trial changed code" in messages


def test_no_augmentation_is_the_same_under_every_policy(planted):
    plain = planted(policy="plain", calibrated=False)
    none = plain["magnitude"] == "none"
    other = plain[~none].assign(policy="mine", calibrated=True)
    other["trial"] = [f"other {trial}" for trial in other["trial"]]
    frame = pd.concat([plain, other], ignore_index=True)
    lines = best_per_size(frame)
    assert {tuple(line.size) for line in lines} == {("width", "policy")}
    for width, mine, theirs in zip((0.5, 2.0), lines[::2], lines[1::2], strict=True):
        level = plain[none & (plain["width"] == width)]["test_top1"].mean()
        assert (mine.size["policy"], theirs.size["policy"]) == ("mine", "plain")
        assert mine.gain == pytest.approx(mine.test - level)
        assert mine.gain_half > 0
        assert [cell.magnitude for cell in mine.cells] == [0.2, 0.5, 0.8]
    # of another width it would be another model
    apart = best_per_size(frame[~((frame["width"] == 0.5) & (frame["magnitude"] == "none"))])
    assert [math.isnan(line.gain) for line in apart] == [True, True, False, False]


def test_by_says_what_a_size_is(planted):
    table = planted()
    assert [line.size for line in best_per_size(table, ["params_nonzero"])] == [
        {"params_nonzero": 500.0}, {"params_nonzero": 2000.0},
    ]  # fmt: skip
    with pytest.raises(UserError, match="did you mean 'width'"):
        best_per_size(table, ["widht"])


def test_the_loss_is_better_where_it_is_lower(planted):
    table = planted()
    table["val_loss"] = 1 - table["val_top1"]
    table["test_loss"] = 1 - table["test_top1"]
    by_loss = best_per_size(table, metric=METRICS["loss"])
    for a, b in zip(by_loss, best_per_size(table), strict=True):
        assert (a.best.magnitude, a.ties) == (b.best.magnitude, b.ties)
        assert a.gain == pytest.approx(b.gain)
        assert a.optimum.at == pytest.approx(b.optimum.at, abs=0.02)
    table.loc[0, "val_loss"] = math.inf
    with pytest.raises(UserError, match="no finite number"):
        best_per_size(table, metric=METRICS["loss"])
    with pytest.raises(UserError, match="no column 'val_loss'"):
        best_per_size(planted(), metric=METRICS["loss"])


def test_sizes_are_in_order_whatever_their_type(planted):
    table = planted()
    table["dense_long"] = [None if width == 2.0 else 0.9 for width in table["width"]]
    table["family"] = ["b" if width == 2.0 else "a" for width in table["width"]]
    results = best_per_size(table, ["dense_long", "family", "width"])
    assert [line.size["width"] for line in results] == [2.0, 0.5]
    assert statistics.fmean(len(line.cells) for line in results) == 4


def test_a_size_by_counts_is_what_the_axes_say_with_the_mean_count(planted):
    table = planted(sparsity=0.8)
    table["macs_nonzero"] = [1000 * w + s for w, s in zip(table["width"], table["seed"])]
    results = best_per_size(table, ["macs_nonzero"])
    assert [line.size for line in results] == [{"macs_nonzero": 501}, {"macs_nonzero": 2001}]
    assert {cell.seeds for line in results for cell in line.cells} == {3}
    one = table[table["width"] == 2.0].drop(columns="width")
    assert [line.size for line in best_per_size(one, ["macs_nonzero"])] == [{"macs_nonzero": 2001}]


def test_sizes_made_in_different_ways_say_so_on_their_line(planted):
    table = planted(flags="", torch="2.1")
    small = table["width"] == 0.5
    table.loc[small & (table["seed"] == 0), "code"] = None
    assert "the rows differ in code: abc, unknown" in warnings(table)
    table.loc[small & (table["seed"] == 1), "flags"] = "mixed_torch;mixed_device"
    table.loc[~small, "torch"] = "2.2"
    results = best_per_size(table)
    assert [line.differs_in for line in results] == [("code", "mixed_torch", "mixed_device"), ()]
    shown = best_table(results, [])
    assert shown.header[-1] == "differs in"
    assert [row[-1] for row in shown.rows] == ["code, mixed_torch, mixed_device", "-"]

"""Two sweeps against each other: planted changes are found, noise is left alone."""

import math

import numpy as np
import pytest

from analysis import rows_file
from analysis.compare import compare, comparison_table, main, notes
from harness.errors import UserError

CURVES = {0.5: (0.80, 0.82, 0.78, 0.70), 2.0: (0.85, 0.87, 0.90, 0.88)}


def verdicts(changes):
    return {(change.size.get("width"), change.magnitude): change.verdict for change in changes}


def test_a_planted_change_is_found_and_the_rest_is_noise(planted):
    moved = {**CURVES, 2.0: (0.85, 0.87, 0.80, 0.88)}
    changes = compare(planted(CURVES), planted(moved, seed=1))
    verdict_of = verdicts(changes)
    assert verdict_of.pop((2.0, 0.5)) == "changed"
    assert set(verdict_of.values()) == {"within noise"}
    change = next(change for change in changes if change.verdict == "changed")
    assert change.after - change.before == pytest.approx(-0.1, abs=0.02)
    assert len(comparison_table(changes, []).rows) == 1
    assert len(comparison_table(changes, [], every=True).rows) == 8


@pytest.mark.slow
def test_two_equal_sweeps_are_rarely_told_apart(planted, with_noise):
    chance, true, alarms = np.random.default_rng(0), planted(spread=0.0), 0
    for _ in range(300):
        changes = compare(with_noise(true, chance), with_noise(true, chance))
        alarms += any(change.verdict == "changed" for change in changes)
    assert alarms / 300 < 0.07


def test_the_same_rows_are_identical_in_any_order(planted):
    frame = planted()
    changes = compare(frame, frame.sample(frac=1.0, random_state=0))
    assert {change.verdict for change in changes} == {"identical"}


def test_cells_in_one_only_and_cells_not_done_are_named(planted):
    before, after = planted(), planted(seed=1)
    before = before[before["width"] < 1]
    gone = (after["width"] < 1) & (after["magnitude"] == 0.8)
    lost = (after["width"] < 1) & (after["magnitude"] == 0.5) & (after["seed"] == 0)
    after.loc[lost, ["state", "val_top1", "test_top1"]] = ["diverged", math.nan, math.nan]
    verdict_of = verdicts(compare(before, after[~gone]))
    assert verdict_of[0.5, 0.8] == "only in first"
    assert verdict_of[0.5, 0.5] == "diverged in second"
    assert {verdict_of[2.0, magnitude] for magnitude in ("none", 0.2, 0.5, 0.8)} == {
        "only in second"
    }
    waiting = after.assign(state="waiting")
    assert set(verdicts(compare(before, waiting)).values()) == {
        "not done in second", "only in second",
    }  # fmt: skip


def test_one_seed_says_nothing(planted):
    changes = compare(planted(seeds=1), planted(seeds=1, seed=1))
    assert {change.verdict for change in changes} == {"one seed"}


def test_test_numbers_take_part_in_no_comparison(planted):
    before, after = planted(), planted(seed=1)
    other = after.assign(test_top1=1 - after["test_top1"])
    assert compare(before, after) == compare(before, other)


def test_how_the_two_were_made_is_told(planted):
    messages = notes(planted(), planted().assign(code="def", state="waiting"))
    assert "code: abc in the first, def in the second" in messages
    assert any("second: 0 of 24 trials are done" in note for note in messages)


def test_columns_must_be_in_both(planted):
    other = planted(policy="a")
    other.loc[other["width"] > 1, "policy"] = "b"
    with pytest.raises(UserError, match="the first rows have no column 'policy'"):
        compare(planted(), other)
    assert compare(planted(), other, ["width"])
    sized = compare(planted(dataset="a"), planted(dataset="b"))
    assert {change.verdict for change in sized} == {"only in first", "only in second"}


def test_the_command_compares_files_in_every_metric_and_format(planted, tmp_path, capsys):
    frame = planted(val_loss=0.3, test_loss=0.4)
    rows_file.write(frame, tmp_path)
    words = [f"rows={tmp_path}/rows.csv", f"with={tmp_path}/rows.parquet"]
    for more in ("format=latex", "format=csv", "metric=loss", "show=all", "where=width > 1"):
        assert main([*words, more]) == 0
    assert "identical" in capsys.readouterr().out
    with pytest.raises(UserError, match="with is missing: add with="):
        main(words[:1])


def test_cells_that_only_differ_on_test_are_counted(planted):
    frame = planted()
    other = frame.copy()
    changed = (frame["width"] == 2.0) & (frame["magnitude"] == 0.5)
    other.loc[changed, "test_top1"] -= 0.01
    changes = compare(frame, other)
    assert {change.verdict for change in changes} == {"identical"}
    assert "Test results differ in 1 cell." in comparison_table(changes, []).notes[0]

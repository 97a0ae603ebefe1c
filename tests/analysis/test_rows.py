"""Rows: files come back as they were, mistakes get a sentence, no run counts twice."""

import math
from pathlib import Path

import pandas as pd
import pytest

from analysis import checks, columns, commands, render, rows, rows_file
from analysis.best import best_per_size
from analysis.claims import claims
from analysis.provenance import warnings
from analysis.table import best_table
from harness.cluster import read_sweep, value_of
from harness.config import load
from harness.errors import UserError
from harness.sweep.axes import PATHS, SHORT
from harness.sweep.plan import make_plan
from harness.sweep.where import parse


def table_of(frame):
    return render.csv(best_table(best_per_size(frame), []))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda t: t.drop(columns="val_top1"), "column 'val_top1' is missing"),
        (lambda t: t.iloc[:0], "it has no rows"),
        (lambda t: t.assign(test_top1=85.0), "divide percentages by 100"),
        (lambda t: t.assign(test_top1=[85.0, *t["test_top1"][1:]]), "divide percentages by 100"),
        (lambda t: t.assign(val_top1=-0.1), "-0.1 is outside"),
        (lambda t: t.assign(val_top1=math.inf), "inf is outside"),
        (lambda t: t.assign(val_top1="high"), "'high' is not a number"),
        (lambda t: t.assign(val_top1=math.nan), "are done but have no accuracy"),
        (lambda t: t.assign(magnitude=1.5), "'1.5' is neither `none` nor a number from 0 to 1"),
        (lambda t: t.assign(magnitude="off"), "'off' is neither `none` nor a number"),
        (lambda t: t.assign(magnitude=math.nan), "magnitude: a row has no magnitude"),
        (lambda t: t.assign(magnitude=[[1]] * len(t)), "'[1]' is neither `none` nor a number"),
        (lambda t: t.assign(state="finished"), "state 'finished' is not known"),
        (lambda t: t.assign(state=None), "state: a row has no state (valid: damaged"),
        (lambda t: t.assign(magnitude=None), "a row has no magnitude; without augmentation it is"),
        (lambda t: t.assign(seed=None), "seed: a row has no seed"),
        (lambda t: t.assign(params_nonzero="many"), "params_nonzero: 'many' is not a number"),
        (lambda t: pd.concat([t, t.iloc[:1]]), "is there twice"),
    ],
)
def test_rows_that_are_wrong_get_a_sentence(planted, change, text):
    with pytest.raises(UserError) as caught:
        checks.check(change(planted()), "FILE")
    assert text in str(caught.value)
    assert str(caught.value).startswith("FILE cannot be used as rows:")


def test_all_mistakes_are_listed_at_once(planted):
    table = planted().assign(val_top1=-1.0, magnitude=7.0, state="lost")
    with pytest.raises(UserError) as caught:
        checks.check(table, "FILE")
    assert len(str(caught.value).splitlines()) == 4


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_files_of_rows_come_back_as_they_were(planted, tmp_path, suffix):
    table = planted(flags="", **{"recipe.nesterov": None})
    rows_file.write(table, tmp_path)
    again = commands.load([], [tmp_path / f"rows{suffix}"])
    assert list(again["magnitude"]) == list(table["magnitude"])
    assert table_of(again) == table_of(table)


def test_a_damaged_file_and_a_missing_one_get_a_sentence(tmp_path):
    (tmp_path / "rows.parquet").write_bytes(b"PAR1 not really")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "words.csv").write_bytes(b"\xff\xfe\x00no table")
    for name in ("rows.parquet", "absent.csv", "empty.csv", "words.csv"):
        with pytest.raises(UserError, match=name):
            commands.load([], [tmp_path / name])


def test_several_files_count_each_trial_once(planted, tmp_path):
    table = planted()
    waiting = table["seed"] == 2
    half = table.assign(grid="other")
    half.loc[waiting, "state"] = "waiting"
    half.loc[waiting, ["val_top1", "test_top1"]] = math.nan
    rows_file.write(half, tmp_path / "half")
    rows_file.write(table, tmp_path / "whole")
    both = commands.load([], [f"{tmp_path}/half/rows.csv", tmp_path / "whole/rows.parquet"])
    assert len(both) == len(table)
    assert (both["state"] == "done").all()
    assert table_of(both) == table_of(table)


def test_a_trial_with_two_results_is_refused(planted):
    table = planted()
    other = table.assign(val_top1=table["val_top1"] / 2)
    with pytest.raises(UserError, match="has different results in a, b"):
        commands.together({"a": table, "b": other})


def test_rows_of_one_cell_must_be_replicates(planted):
    table = planted()
    with pytest.raises(UserError, match="they differ in width"):
        best_per_size(table, ["family"])
    again = pd.concat([table, table]).drop(columns="trial")
    with pytest.raises(UserError, match="the rows are equal"):
        best_per_size(again)


def test_sweeps_that_differ_outside_the_axes_are_told_apart_by_name(planted):
    table = planted()
    longer = planted(seed=1).assign(grid="longer", trial=[f"longer-{n}" for n in range(len(table))])
    results = best_per_size(commands.together({"a": table, "b": longer}))
    assert [line.size["grid"] for line in results] == ["longer", "planted", "longer", "planted"]
    assert {cell.seeds for line in results for cell in line.cells} == {3}


def test_only_axes_make_sizes_unless_a_column_is_named(planted):
    table = planted()
    table["wall_time"] = [float(n) for n in range(len(table))]
    table["recipe.schedule.milestones"] = [[0.5, 0.75], [0.3]] * (len(table) // 2)
    table = checks.check(table.drop(columns="trial"), "FILE")
    assert "recipe.schedule.milestones" in best_per_size(table)[0].size
    assert "wall_time" not in best_per_size(table)[0].size
    assert len(best_per_size(table, ["wall_time"])) == len(table)


def test_every_short_axis_is_known_to_the_analysis():
    assert set(SHORT) - {"magnitude", "seed"} <= set(columns.AXES)
    assert set(columns.AXES) <= set(columns.COLUMNS)


def test_trials_of_other_epochs_are_sizes_of_their_own(planted):
    table = planted().assign(epochs=10)
    longer = planted(seed=1).assign(epochs=30, trial=[f"l{n}" for n in range(len(table))])
    both = pd.concat([table, longer], ignore_index=True)
    assert [(line.size["width"], line.size["epochs"]) for line in best_per_size(both)] == [
        (0.5, 10), (0.5, 30), (2.0, 10), (2.0, 30),
    ]  # fmt: skip
    # levels of pruning take longer: that only follows, and parts nothing
    deeper = longer.assign(sparsity=0.5)
    results = best_per_size(pd.concat([table, deeper], ignore_index=True))
    assert {tuple(line.size) for line in results} == {("width", "sparsity")}


def test_a_sweep_over_epochs_goes_through_the_analysis(tmp_path):
    words = ["grid=quickstart", f"store={tmp_path}", "axes.epochs=[2,3]", "axes.sparsity=[0.0]"]
    frame = commands.load(words, None)
    assert {line.size["epochs"] for line in best_per_size(frame)} == {2, 3}


def test_a_condition_selects_by_an_axis_of_lists_in_tables_as_in_status(tmp_path):
    words = ["grid=quickstart", f"store={tmp_path}", "axes.sparsity=[0.7]",
             "axes.compress.levels=[[0.3],[0.6]]", "where=compress.levels == [0.6]"]  # fmt: skip
    frame = commands.read_request(words, commands.ROW_OPTIONS).frame
    assert set(frame["compress.levels"]) == {"[0.6]"}
    assert set(frame["trial"]) == {trial["trial"] for trial in read_sweep(words, {}).trials}


def test_tables_take_the_names_of_all_keys_that_status_takes(tmp_path):
    names = sorted({*SHORT, *PATHS})
    words = ["grid=quickstart", f"store={tmp_path}"]
    where = "where=width == 0.25 and recipe.epochs == 5 and compress.protect == ['classifier']"
    request = commands.read_request([*words, f"by={','.join(names)}", where], commands.ROW_OPTIONS)
    assert len(request.by) == len(names)
    trials = {trial.id: trial for trial in make_plan(load(words).grid).trials}
    assert set(request.frame["width"]) == {0.25}
    for name, column in zip(names, request.by, strict=True):
        if name == "epochs":  # of the rows: the sum over the path
            continue
        for trial, value in zip(request.frame["trial"], request.frame[column], strict=True):
            expected = value_of(trials[trial], name)
            if isinstance(expected, list):
                expected = str(expected)
            values = {"x": None if value != value else value, "y": expected}
            assert parse("x == y", values).holds(values), name


def test_a_pilot_becomes_an_estimate_in_the_rows(tmp_path):
    from harness.sweep import cost

    words = ["grid=quickstart", f"store={tmp_path}"]
    assert commands.load(words, None)["estimated_seconds"].isna().all()
    plan = make_plan(load(words).grid)
    widths = {config.model.width for config in plan.stages.values()}
    for config in plan.stages.values():
        if config.model.width == min(widths):
            cost.write_measurement(tmp_path, config, cost.Measurement(2.5, 0.0, 1, 1, "cpu"))
    frame = commands.load(words, None)
    is_measured = frame["width"] == min(widths)
    assert (frame[is_measured]["estimated_seconds"] == 2.5 * frame[is_measured]["epochs"]).all()
    assert frame[~is_measured]["estimated_seconds"].isna().all()


def test_where_chooses_rows(planted):
    table = planted()
    assert set(commands.selected(table, "width < 1")["width"]) == {0.5}
    assert set(commands.selected(table, "magnitude == none or magnitude > 0.5")["magnitude"]) == {
        "none", 0.8,
    }  # fmt: skip
    with pytest.raises(UserError, match="leaves none of the 24 rows"):
        commands.selected(table, "width > 100")
    with pytest.raises(UserError, match="did you mean 'width'"):
        commands.selected(table, "widht > 1")


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ([], "add grid=NAME, or rows=FILE"),
        (["nonsense"], "not of the form key=value"),
        (["rows="], "rows has no value"),
        (["rows=a.csv", "grid=quickstart"], "both name rows: keep one"),
    ],
)
def test_words_that_are_wrong_get_a_sentence(args, text):
    with pytest.raises(UserError, match=text):
        rows.main(args or ["out=x"])


def test_every_column_is_documented():
    page = (Path(__file__).parents[2] / "docs" / "analysis.md").read_text(encoding="utf-8")
    for name, meaning in columns.COLUMNS.items():
        assert f"| `{name}` | {meaning} |" in page


def test_rows_of_a_sweep_say_why_a_trial_has_no_result(tmp_path):
    from harness.cluster.failure import describe
    from harness.store.store import Store

    words = ["grid=quickstart", f"store={tmp_path}"]
    frame = commands.load(words, None)
    assert set(frame["state"]) == {"waiting"}
    store = Store(tmp_path)
    stage = frame[frame["sparsity"] == 0]["stage"].iloc[0]
    store.folder(stage).mkdir(parents=True)
    store.record_failure(stage, describe(KeyError("x")))
    again = commands.load(words, None).set_index("stage")
    assert again.loc[stage, "state"] == "failed"
    assert again.loc[stage, "why"] == "code: 'x'"
    assert again["why"].str.fullmatch(r"its parent \w+ failed").sum() == 1  # the pruned one


def test_the_keys_that_change_results_most_are_in_every_row(tmp_path):
    frame = commands.load(["grid=quickstart", f"store={tmp_path}"], None)
    assert set(frame["batch_size"]) == {64}
    assert set(frame["lr"]) == {0.1}
    assert set(frame["train_size"]) == {2000}
    assert set(frame["test_images"]) == {2000}


def test_magnitudes_are_rounded_when_they_are_read(planted):
    frame = planted().astype({"magnitude": str})
    odd = (frame["magnitude"] == "0.2") & (frame["seed"] == 0)
    frame.loc[odd, "magnitude"] = "0.20000000000000004"
    read = checks.check(frame, "FILE")
    assert set(read["magnitude"]) == {"none", 0.2, 0.5, 0.8}


def test_a_column_that_nobody_declared_is_not_pooled_in_silence(planted):
    frame = planted(seeds=6, wall_time=0.0, optimizer="sgd")
    frame["wall_time"] = [100.0 + at for at in range(len(frame))]
    frame.loc[frame["seed"] > 2, "optimizer"] = "adamw"
    (message,) = warnings(frame)
    assert "the column optimizer has several values within a cell (adamw, sgd)" in message
    assert warnings(frame, ["width", "optimizer"]) == []
    assert warnings(frame[frame["optimizer"] == "sgd"]) == []
    each = frame.assign(note=["a" if width < 1 else "b" for width in frame["width"]])
    assert "note" not in " ".join(warnings(each))  # follows from the width


def test_rows_of_one_config_with_two_results_get_no_advice_to_pool_them(planted):
    table = planted().drop(columns="trial")
    other = table.assign(val_top1=table["val_top1"] / 2, gpu_seconds=3.0)
    with pytest.raises(UserError) as caught:
        best_per_size(pd.concat([table, other], ignore_index=True))
    assert "differ only in results (val_top1, gpu_seconds): keep one of them" in str(caught.value)
    assert "by=" not in str(caught.value)


WORDS = {"tiny": (0.80, 0.82, 0.78, 0.70), "small": (0.82, 0.85, 0.84, 0.78),
         "base": (0.85, 0.87, 0.90, 0.88), "large": (0.86, 0.87, 0.90, 0.93)}  # fmt: skip


def test_sizes_named_by_words_are_in_the_order_of_their_parameters(planted):
    counts = {"tiny": 1e5, "small": 4e5, "base": 2e6, "large": 9e6}
    parts = [planted({1.0: curve}, width=word, params_nonzero=counts[word], spread=0.002)
             for word, curve in WORDS.items()]  # fmt: skip
    frame = pd.concat(parts, ignore_index=True).drop(columns="trial")
    named = frame.rename(columns={"width": "size"})
    for rows_, column, by in ((frame, "width", None), (named, "size", ["size"])):
        sizes = [result.size[column] for result in best_per_size(rows_, by)]
        assert sizes == ["tiny", "small", "base", "large"]
        (result,) = claims(rows_, by=by, names=["A1"])
        assert result.effect.estimate.effect > 0
    (result,) = claims(frame.drop(columns="params_nonzero"), names=["A1"])
    assert result.verdict == "not tested"
    assert "it needs an order of width" in result.compared

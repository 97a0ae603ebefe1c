"""Odd sweeps through every command: a right answer or a sentence, and no warning."""

import math
import random

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.csv
import pytest

from analysis import (
    checks,
    claims,
    columns,
    commands,
    compare,
    figures,
    report,
    rows_file,
    table,
)
from analysis.commands import show
from harness.errors import UserError

NASTY = "50%_of $x$ & {y} #1 \\input{z} <b onload='x'> `rm` $(id) | \x1b[31m 猫 \" ; \n end"


def all_diverged(planted):
    return planted().assign(state="diverged", val_top1=math.nan, test_top1=math.nan)


def one_done(planted):
    frame = planted().assign(state="waiting", val_top1=math.nan, test_top1=math.nan)
    frame.loc[3, ["state", "val_top1", "test_top1"]] = ["done", 0.5, 0.5]
    return frame


def named(planted):
    frame = planted(grid=NASTY, policy=NASTY, why=NASTY, code=NASTY)
    frame["recipe." + NASTY] = [f"{NASTY} {width}" for width in frame["width"]]
    frame["schedule"] = [NASTY if width > 1 else "constant" for width in frame["width"]]
    frame.loc[0, ["state", "val_top1", "test_top1"]] = ["failed", math.nan, math.nan]
    return frame


def all_columns(planted):
    frame = planted(epochs=5, gpu_seconds=60.0, params_total=4000)
    frame["difficulty"] = [0.0 if m == "none" else m for m in frame["magnitude"]]
    frame["surplus"] = ["none" if w < 1 else "slice" for w in frame["width"]]
    frame["calibrated"] = [w < 1 for w in frame["width"]]
    frame["sparsity"] = [0.0 if w < 1 else 0.99 for w in frame["width"]]
    return frame


ODD = {
    "usual": lambda planted: planted(),
    "one seed": lambda planted: planted(seeds=1),
    "one size": lambda planted: planted({1.0: (0.8, 0.82, 0.81, 0.7)}),
    "one magnitude": lambda planted: planted({1.0: (0.8,), 2.0: (0.9,)}, magnitudes=(0.2,)),
    "only none": lambda planted: planted({1.0: (0.8,)}, magnitudes=("none",)),
    "one row": lambda planted: planted({1.0: (0.8,)}, magnitudes=(0.2,), seeds=1),
    "all diverged": all_diverged,
    "one done": one_done,
    "nothing varies but noise": lambda planted: planted(spread=0.0),
    "perfect and hopeless": lambda planted: planted({1.0: (1.0, 1.0, 0.01, 0.01)}, spread=0.0),
    "no parameters": lambda planted: planted(params_nonzero=0),
    "unknown columns": lambda planted: planted(colour="red", note=None, wall_time=3.5),
    "nasty names": named,
    "all columns": all_columns,
    "required columns": lambda planted: planted()[
        ["state", "magnitude", "seed", "val_top1", "test_top1", "width"]
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ODD)
def test_odd_sweeps_go_through_every_command(planted, tmp_path, capsys, name):
    frame = checks.check(ODD[name](planted), "odd")
    rows_file.write(frame, tmp_path)
    source = f"rows={tmp_path}/rows.parquet"
    for shape in ("screen", "latex", "markdown", "csv", "html"):
        assert table.main([source, f"format={shape}"]) == 0
        assert claims.main([source, f"format={shape}"]) == 0
    assert compare.main([source, f"with={tmp_path}/rows.csv"]) == 0
    assert figures.main([source, f"out={tmp_path}/figures"]) == 0
    assert report.main([source, f"out={tmp_path}/report"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "nan" not in printed.out.lower().split()
    assert "\x1b" not in printed.out


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda t: t.assign(test_top1=math.inf), "inf is outside"),
        (lambda t: t.assign(val_top1=-math.inf), "-inf is outside"),
        (lambda t: t.assign(val_top1=[100 * v for v in t["val_top1"]]), "divide percentages"),
        (lambda t: t.assign(sparsity=90.0), "it is a share, so divide percentages by 100"),
        (lambda t: t.assign(sparsity=1.0), "sparsity: 1 is outside [0, 1)"),
        (lambda t: t.assign(params_nonzero=-5), "params_nonzero: -5 is not a count"),
        (lambda t: t.assign(epochs=math.inf), "epochs: inf is not a count"),
        (lambda t: t.assign(difficulty=math.inf), "difficulty: inf is not finite"),
        (lambda t: t.assign(seed=[10**400] * len(t)), "seed: a number has more than 308 digits"),
        (lambda t: t.assign(val_top1=True), "val_top1: True is not a number"),
        (lambda t: t.assign(seed=math.inf), "seed: inf is not a whole number"),
        (lambda t: t.assign(**{"seed.1": 3}), "column 'seed' is there twice"),
        (lambda t: pd.concat([t, t[["seed"]]], axis=1), "column 'seed' is there twice"),
    ],
)
def test_numbers_that_cannot_be_get_a_sentence(planted, change, text):
    with pytest.raises(UserError) as caught:
        checks.check(change(planted()), "FILE")
    assert text in str(caught.value)


def test_lines_longer_than_the_header_are_refused(tmp_path):
    header = "state,magnitude,seed,val_top1,test_top1"
    (tmp_path / "a.csv").write_text(f"{header}\nextra,done,0.2,0,0.8,0.8\n")
    with pytest.raises(UserError, match="more cells than its header"):
        commands.load([], [tmp_path / "a.csv"])
    (tmp_path / "b.csv").write_text(f"{header}\ndone,0.2,0,0.8,0.8\ndone,0.2,1,0.8,0.8,7\n")
    with pytest.raises(UserError, match=r"b\.csv cannot be read"):
        commands.load([], [tmp_path / "b.csv"])
    (tmp_path / "c.csv").write_text(f"{header}\n")
    with pytest.raises(UserError, match="it has no rows"):
        commands.load([], [tmp_path / "c.csv"])


@pytest.mark.parametrize("files", [",", "[]", " , "])
def test_lists_of_no_file_get_a_sentence(planted, tmp_path, files):
    with pytest.raises(UserError, match="rows has no value"):
        table.main([f"rows={files}"])
    rows_file.write(planted(), tmp_path)
    with pytest.raises(UserError, match="with has no value"):
        compare.main([f"rows={tmp_path}/rows.csv", f"with={files}"])


def test_a_column_named_twice_is_one(planted, tmp_path, capsys):
    rows_file.write(planted(), tmp_path)
    source = f"rows={tmp_path}/rows.csv"
    compare.main([source, f"with={tmp_path}/rows.csv", "by=width,width", "show=all"])
    table.main([source, "by=width,width"])
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.split().count("width") for line in lines if line.startswith("  ")) == 2


def test_rows_of_which_some_have_no_sparsity_are_drawn(planted):
    frame = planted()
    frame["sparsity"] = [None, 0.5, 0.0] * (len(frame) // 3)
    frame = checks.check(frame, "FILE")
    drawn = figures.figures(frame, table.best_per_size(frame))
    (axes, *_) = drawn["accuracy_against_sparsity"].axes
    assert {x for line in axes.lines if line.get_marker() == "o" for x in line.get_xdata()} == {
        0.0, 0.5,
    }  # fmt: skip


@pytest.mark.slow
def test_nonsense_never_ends_in_a_traceback(planted, tmp_path):
    chance = random.Random(0)
    words = ["", "nan", "inf", "-1", "1e999", "none", "done", "0.5", "NaN", "<b>", "\x00", "1;2"]
    columns = ["state", "magnitude", "seed", "val_top1", "test_top1", "width", "params_nonzero"]
    sentences = []
    for _ in range(150):
        frame = planted()[columns].astype(str)
        for _ in range(chance.randrange(1, 4)):
            at, column = chance.randrange(len(frame)), chance.choice(columns)
            frame.loc[at, column] = chance.choice(words)
        try:
            checked = checks.check(frame, "FILE")
            show(table.best_table(table.best_per_size(checked), []), "screen")
            claims.claims(checked)
        except UserError as error:
            sentences.append(str(error))
    assert len(sentences) > 50
    assert all("\x00" not in text and len(text) > 20 for text in sentences)


@pytest.fixture(scope="module")
def many_rows(planted, every_column, tmp_path_factory):
    """A folder with 200,000 rows."""
    curves = {float(width): (0.8, 0.82, 0.81, 0.7) for width in range(50)}
    few = planted(curves, seeds=10, **every_column)
    assert set(few.columns) >= set(columns.COLUMNS)
    frame = pd.concat([few] * 100, ignore_index=True)
    frame["width"] += 50.0 * (np.arange(len(frame)) // len(few))
    frame["trial"] = [f"trial-{number}" for number in range(len(frame))]
    frame["magnitude"] = frame["magnitude"].astype(str)
    folder = tmp_path_factory.mktemp("many")
    frame.to_parquet(folder / "rows.parquet", index=False)
    pyarrow.csv.write_csv(pyarrow.Table.from_pandas(frame), folder / "rows.csv")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("command", ["table", "claims", "compare"])
def test_two_hundred_thousand_rows_make_any_table(many_rows, capsys, command):
    verb = {"table": table.main, "claims": claims.main, "compare": compare.main}[command]
    more = [f"with={many_rows}/rows.parquet"] if command == "compare" else []
    verb([f"rows={many_rows}/rows.csv", *more])
    printed = capsys.readouterr()
    assert printed.err == ""
    assert command != "table" or printed.out.count("\n") > 5000  # a line per size
    assert command != "compare" or "20,000 cells compared: 20,000 identical" in printed.out

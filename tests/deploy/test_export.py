"""`harness.export` on a finished sweep: what it chooses, what it writes, what it refuses."""

import json
import shutil

import pandas as pd
import pytest
import torch

from harness import export
from harness.deploy import onnx_file
from harness.errors import UserError
from harness.rows import rows_of_grid

pytestmark = pytest.mark.slow
FILES = {"README.md", "config.json", "model.onnx", "model.safetensors"}


def folders_in(out):
    return {path.name: json.loads((path / "config.json").read_text()) for path in out.iterdir()}


def test_the_best_magnitude_of_each_size_is_exported(sweep, tmp_path, capsys):
    out = tmp_path / "networks"
    assert export.main([*sweep, f"out={out}"]) == 0
    rows = pd.DataFrame(rows_of_grid(sweep))
    means = rows.groupby(["width", "magnitude"])["val_top1"].mean()
    trials = {d["trial"] for d in folders_in(out).values()}
    chosen = rows[rows["trial"].isin(trials)]
    assert sorted(chosen["width"]) == [0.1, 0.25]
    assert set(chosen["seed"]) == {0}
    for _, row in chosen.iterrows():
        assert means[row["width"], row["magnitude"]] == means[row["width"]].max()
        (name,) = (n for n, d in folders_in(out).items() if d["trial"] == row["trial"])
        card = (out / name / "README.md").read_text()
        scores = (f"| {row['val_top1']:.4f} |", f"| {row['test_top1']:.4f} |")
        words = ("has the best mean (top1", row["stage"], str(row["split_hash"]))
        for text in (*scores, *words, f"magnitude {row['magnitude']}"):
            assert text in card
        assert export.load(out / name)(torch.zeros(2, 3, 8, 8)).shape == (2, 10)
        assert {path.name for path in (out / name).iterdir()} == FILES
        assert folders_in(out)[name]["onnx"]["largest_difference"] <= 1e-4
    printed = capsys.readouterr()
    assert printed.out.count("\n") == printed.out.count("written: ") == 2
    assert printed.err == ""
    assert [path.name for path in tmp_path.iterdir()] == ["networks"]


def test_all_seeds_or_exactly_those_of_a_condition(sweep, tmp_path):
    assert export.main([*sweep, f"out={tmp_path / 'all'}", "seeds=all", "onnx=false"]) == 0
    assert len(folders_in(tmp_path / "all")) == 4
    where = "where=magnitude == 0.5 and width == 0.1"
    assert export.main([*sweep, f"out={tmp_path / 'some'}", where, "onnx=false"]) == 0
    assert len(folders_in(tmp_path / "some")) == 2


def test_mistakes_are_sentences_and_nothing_is_written(sweep, tmp_path, monkeypatch):
    full = tmp_path / "full"
    full.mkdir()
    (full / "own.txt").write_text("mine")
    (tmp_path / "file").write_text("")
    new = f"out={tmp_path / 'new'}"
    monkeypatch.setattr(onnx_file, "PACKAGES", ("no_such_package",))
    for words, sentence in [
        ([new], "needs no_such_package, not installed here: pip install no_such_package"),
        ([f"out={full}"], "holds other files"),
        ([f"out={tmp_path / 'file'}"], "out="),
        ([], "out is missing"),
        ([new, "where=width == 7"], "leaves none of the 8 rows"),
        ([new, "where=width == 0.1", "seeds=all"], "keep one of them"),
        ([new, "seeds=al"], "did you mean .all."),
        ([new, "by=widht"], "did you mean 'width'"),
        ([new, "recipe.epochs=2"], "has no size with a best magnitude yet"),
        ([new, "recipe.epochs=2", "where=width == 0.1"], "4 of the 4 trials that where= chooses"),
    ]:
        with pytest.raises(UserError, match=sentence):
            export.main([*sweep, *words])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "full"]
    assert [path.name for path in full.iterdir()] == ["own.txt"]


def test_weights_that_were_not_kept_and_damaged_ones(sweep, tmp_path):
    store = tmp_path / "store"
    shutil.copytree(sweep[1].removeprefix("store="), store)
    words = [sweep[0], f"store={store}", f"out={tmp_path / 'out'}", "onnx=false"]
    finals = sorted(store.glob("stages/*/*/checkpoint/final.pt"))
    for path in finals:
        path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="is damaged"):
        export.main(words)
    for path in finals:
        path.unlink()
    with pytest.raises(
        UserError, match=r"run\.keep_weights=all store=\S+-with-weights` trains them"
    ):
        export.main(words)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]

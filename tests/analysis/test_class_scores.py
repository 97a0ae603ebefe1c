"""Scores of classes in rows: recorded ones, those of older results, and those that are missing."""

import numpy as np
import pytest

from analysis import classes, commands, rows_file, table
from analysis.best import best_per_size
from harness.config import load
from harness.data import load as load_data
from harness.errors import UserError
from harness.files import atomic_write
from harness.statistics import ClassCounts
from harness.store.claims import try_claim
from harness.store.correct import packed
from harness.store.store import Store
from harness.sweep.plan import make_plan

COUNTS = {"params_total": 5, "params_nonzero": 4, "macs_dense": 9, "macs_nonzero": 8}


@pytest.fixture
def old_sweep(tmp_path):
    """Return the words of a finished sweep of digits, and its stages' bits by stage and split.

    Its results are as older versions wrote them: bits per example, and no scores of classes.
    """
    words = [
        "grid=quickstart", "dataset=digits", "dataset.train_size=192",
        "dataset.validation_size=100", "dataset.test_size=60", "axes.seed=[0,1]",
        "axes.sparsity=[0.0]", "axes.width=[0.5]", "axes.magnitude=[none,0.2]",
        f"store={tmp_path}",
    ]  # fmt: skip
    launch = load(words)
    store, chance, bits = Store(launch.store), np.random.default_rng(0), {}
    for stage, config in make_plan(launch.grid).stages.items():
        folder, dataset = store.prepare(stage, config), load_data(config.dataset)
        bits[stage] = {name: chance.uniform(size=len(dataset.splits[name])) < 0.8
                       for name in ("validation", "test")}  # fmt: skip
        atomic_write(folder / "correct.npz", packed(bits[stage]))
        scores = [{"top1": float(b.mean()), "loss": 1.0} for b in bits[stage].values()]
        claim = try_claim(folder, "7")
        result = {"status": "done", "val": scores[0], "test": scores[1], "counts": COUNTS,
                  "timing": {"gpu_seconds": 1.0}, "split_hash": dataset.split_hash}  # fmt: skip
        store.finish(stage, claim, result)
        claim.release()
    return words, bits, dataset


def test_scores_of_classes_of_older_results_are_made_from_their_bits(old_sweep):
    words, bits, dataset = old_sweep
    assert commands.load(words)["val_worst_class"].isna().all()  # they cost nothing until needed
    frame = commands.load(words, needs_classes=True)
    for row in frame.to_dict("records"):
        for side, split in (("val", "validation"), ("test", "test")):
            labels = dataset.splits[split].labels
            counts = ClassCounts.of(labels, bits[row["stage"]][split], 10)
            assert row[f"{side}_worst_class"] == counts.worst
            assert row[f"{side}_class_spread"] == counts.spread


def test_a_table_by_the_worst_class_reads_them(old_sweep, capsys):
    assert table.main([*old_sweep[0], "metric=worst_class"]) == 0
    assert "worst class" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("metric", "text"),
    [
        ("calibration_error", "4 rows are done .* not recorded: results of older versions lack it"),
        ("top5", "recorded for sets with 20 classes or more"),
    ],
)
def test_what_older_results_lack_is_said(old_sweep, metric, text):
    with pytest.raises(UserError, match=text):
        table.main([*old_sweep[0], f"metric={metric}"])


def test_changed_bits_are_not_read(old_sweep, capsys):
    words, bits, _ = old_sweep
    folder = Store(load(words).store).folder(next(iter(bits)))
    atomic_write(folder / "correct.npz", packed({}))
    frame = commands.load(words, needs_classes=True)
    assert frame["val_worst_class"].isna().sum() == 1
    assert "was changed after it was written" in capsys.readouterr().err


def test_the_table_of_classes_has_each_class_at_the_chosen_magnitude(old_sweep, capsys, tmp_path):
    words, bits, dataset = old_sweep
    frame = commands.load(words)
    assert classes.main([*words, f"out={tmp_path / 'out'}", "classes=3"]) == 0
    printed = capsys.readouterr().out
    assert "7 classes are left out" in printed
    written = rows_file.read(tmp_path / "out" / "table.csv")
    assert sorted(written["class"]) == list(range(10))  # CSV has all of them
    assert (tmp_path / "out" / "change_per_class.pdf").exists()
    (best,) = best_per_size(frame)
    labels = dataset.test.labels
    for row in written.to_dict("records"):
        of_class = labels == row["class"]
        means = [
            np.mean([bits[stage]["test"][of_class].mean() for stage in cell.stages])
            for cell in (best.none, best.best)
        ]
        assert row["none"] == pytest.approx(100 * means[0])
        assert row["test"] == pytest.approx(100 * means[1])
        assert row["change"] == pytest.approx(100 * (means[1] - means[0]))
        assert row["images"] == of_class.sum()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["rows={rows}"], "a file of rows has no accuracy per class: name the sweep with grid="),
        (["{sweep}", "classes=few"], "classes=few is neither `all` nor a number of classes"),
    ],
)
def test_mistakes_get_a_sentence(old_sweep, tmp_path, words, text):
    sweep = old_sweep[0]
    rows_file.write(commands.load(sweep), tmp_path, "made")
    args = []
    for word in words:
        args += sweep if word == "{sweep}" else [word.format(rows=tmp_path / "made.csv")]
    with pytest.raises(UserError, match=text):
        classes.main(args)

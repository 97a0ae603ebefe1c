"""Evaluations at the end of a training and afterwards, through the commands."""

import json
import shutil

import pytest
from processes import command, run

from analysis import commands, table
from harness.commands import evaluate, launch
from harness.config import load
from harness.corrupt import CORRUPTIONS
from harness.errors import UserError
from harness.files import atomic_write
from harness.store.correct import bits_of
from harness.store.evaluations import read_bits, read_evaluation
from harness.store.store import Store
from harness.sweep.plan import make_plan
from harness.sweep.targets import find_target

GRID = """# Small trials on the digits: dense, masked, without channels, and with a fused surplus.
defaults:
  - override /dataset: digits
  - override /model: cifar_resnet
  - override /recipe: quick
model: {depth: 8, width: 0.25}
dataset: {train_size: 256, validation_size: 60, test_size: 40}
recipe: {epochs: 2, batch_size: 32}
compress: {level_share: 0.5, level_epochs: 1}
run: {engine: ddp}
evaluate: [corruptions]
axes:
  sparsity: [0.0, 0.5]
  magnitude: [none, 0.5]
  seed: [0]
also:
  - set: {compress.scope: layer}
    axes: {compress.method: [channel], sparsity: [0.5], magnitude: [0.5], seed: [0]}
  - set: {surplus.form: fuse}
    axes: {sparsity: [0.0], magnitude: [0.5], seed: [0]}
"""
TARGET = find_target("corruptions")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return the words of the grid, and its store after a training with evaluations."""
    folder = tmp_path_factory.mktemp("evaluate")
    grid = folder / "tiny.yaml"
    grid.write_text(GRID)
    store = folder / "store"
    run("harness.launch", f"grid={grid}", f"store={store}", "run.gang=4")
    return [f"grid={grid}"], store


@pytest.fixture
def afterwards(trained, tmp_path):
    """Return words for a copy of the store without its evaluations, and that store."""
    words, store = trained
    copy = tmp_path / "store"
    shutil.copytree(store, copy)
    for folder in copy.rglob("evaluations"):
        shutil.rmtree(folder)
    return [*words, f"store={copy}"], Store(copy)


def shown_stages(words):
    plan = make_plan(load(words).grid)
    return {path[-1] for path in plan.paths.values()}


def observed(store, stages):
    """What must repeat: the records without times, and the bytes of the bits."""
    records = {}
    for stage in stages:
        record = read_evaluation(store, stage, TARGET.id)
        path = store.folder(stage) / "evaluations" / f"{TARGET.id}.npz"
        about = {k: v for k, v in record.items() if k not in ("seconds", "sha256")}
        records[stage] = about, path.read_bytes()
    return records


@pytest.mark.slow
def test_evaluations_afterwards_are_those_at_the_end_of_training_to_the_bit(trained, afterwards):
    words, store = trained
    again, copy = afterwards
    stages = shown_stages(words)
    assert len(stages) == 6
    assert {path.parents[1].name for path in store.rglob(f"{TARGET.id}.json")} == stages
    printed = run("harness.evaluate", *again, "networks=4")  # by the grid's own key
    assert "0 results are evaluated, 6 are left" in printed
    assert observed(copy, stages) == observed(Store(store), stages)
    assert "6 results are evaluated, 0 are left" in run("harness.evaluate", *again)


@pytest.mark.slow
def test_two_evaluations_at_once_and_damage_end_in_the_same_records(trained, afterwards):
    words, store = trained
    again, copy = afterwards
    both = [command("harness.evaluate", *again, "networks=1") for _ in range(2)]
    for process in both:
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
    expected = observed(Store(store), shown_stages(words))
    assert observed(copy, expected) == expected
    damaged = next(copy.root.rglob(f"{TARGET.id}.json"))
    damaged.write_text(damaged.read_text().replace("gaussian", "Gaussian"))
    assert "it is evaluated again" in run("harness.evaluate", *again)
    assert observed(copy, expected) == expected


@pytest.mark.slow
def test_a_record_has_the_mean_of_its_corruptions_and_rows_show_it(trained, capsys):
    words, store = trained
    frame = commands.load([*words, f"store={store}"])
    for row in frame.to_dict("records"):
        record = read_evaluation(Store(store), row["stage"], TARGET.id)
        arrays = read_bits(Store(store), row["stage"], record)
        assert record["images"] == (60 + 40) * 75
        assert record["seconds"] > 0
        for side, count in (("val", 60), ("test", 40)):
            by_name = record[side]["corruptions"]
            assert list(by_name) == list(CORRUPTIONS)
            assert row[f"{side}_corrupted"] == record[side]["top1"]
            assert record[side]["top1"] == pytest.approx(sum(map(sum, by_name.values())) / 75)
            bits = bits_of(arrays, f"{side}_fog_5")
            assert len(bits) == count
            assert by_name["fog"][4] == bits.mean()
    assert table.main([*words, f"store={store}", "metric=corrupted"]) == 0
    assert "Accuracies on corrupted images" in capsys.readouterr().out


@pytest.mark.slow
def test_the_evaluation_is_no_part_of_a_stage(trained):
    words, _ = trained
    assert make_plan(load(words).grid).stages.keys() == (
        make_plan(load([*words, "evaluate=false"]).grid).stages.keys()
    )


@pytest.mark.slow
def test_before_it_costs_anything_it_says_what_it_takes_and_what_is_missing(afterwards, capsys):
    words, store = afterwards
    assert evaluate.main([*words, "dry_run=true"]) == 0
    printed = capsys.readouterr().out
    assert launch.main([*words, "dry_run=true"]) == 0
    assert "note: 6 results are not evaluated on corruptions" in capsys.readouterr().out
    assert launch.main([words[0], "dry_run=true", f"store={store.root}-new"]) == 0
    assert "corruptions of 6 results: 45,000 images to judge" in capsys.readouterr().out
    assert "45,000 images to judge" in printed  # 6 networks x 100 images x 75
    assert not list(store.root.rglob("evaluations"))
    for path in store.root.rglob("final.pt"):
        path.unlink()
    assert evaluate.main(words) == 1
    printed = capsys.readouterr().out
    assert "the weights of 6 results" in printed
    assert "run.keep_weights=all 'evaluate=[corruptions]' store=" in printed
    with pytest.raises(UserError, match=r"not evaluated: run `python -m harness.evaluate"):
        table.main([*words, "metric=corrupted"])


@pytest.mark.slow
def test_other_weights_than_those_of_the_result_are_refused(afterwards):
    words, store = afterwards
    first, second, *_ = sorted(store.root.rglob("final.pt"))
    result = json.loads((first.parents[1] / "result.json").read_text())
    assert result["status"] == "done"
    atomic_write(first, second.read_bytes())
    # in a process of its own, because a test process can have only one process group
    assert "is a checkpoint of stage" in run("harness.evaluate", *words, code=2)


SETTLES = """# A size that settles by its accuracy on corrupted images.
defaults:
  - override /dataset: digits
  - override /model: cifar_resnet
  - override /recipe: quick
model: {depth: 8, width: 0.25}
dataset: {train_size: 256, validation_size: 60, test_size: 40}
recipe: {epochs: 2, batch_size: 32}
run: {engine: ddp, gang: 4}
evaluate: [corruptions]
axes: {magnitude: [none, 0.3, 0.6], seed: [0, 1]}
settle: {within: 5, seeds: [1, 2], metric: corrupted}
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_sweep_settles_by_corrupted_images_and_waits_for_missing_evaluations(tmp_path):
    grid = tmp_path / "settles.yaml"
    grid.write_text(SETTLES)
    words = [f"grid={grid}", f"store={tmp_path / 'store'}"]
    run("harness.launch", *words)
    sizes = json.loads(run("harness.status", *words, "format=json"))["settle"]["sizes"]
    assert [size["is_settled"] for size in sizes] == [True]
    records = sorted((tmp_path / "store").rglob(f"{TARGET.id}.json"))
    means = {}
    for path in records:
        config = json.loads((path.parents[1] / "config.json").read_text())
        top1 = json.loads(path.read_text())["val"]["top1"]
        means.setdefault(config["augment"]["policy"], []).append(top1)
    assert len(means) == 3
    records[0].unlink()
    printed = run("harness.launch", *words)
    assert "settle.metric=corrupted: 1 finished results lack it" in printed
    run("harness.evaluate", *words)
    again = json.loads(run("harness.status", *words, "format=json"))["settle"]["sizes"]
    assert again == sizes


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["grid=quickstart"], "it is not said what to evaluate on: add on=corruptions"),
        (["grid=quickstart", "on=corruption"], "no evaluation 'corruption'.*corruptions"),
        (["grid=quickstart", "evaluate=[fog]"], r"evaluate: there is no evaluation 'fog'"),
    ],
)
def test_mistakes_get_a_sentence(words, text, tmp_path):
    with pytest.raises(UserError, match=text):
        evaluate.main([*words, f"store={tmp_path}"])

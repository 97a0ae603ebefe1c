"""Image files over two nodes with several ranks: both engines, ZeRO 0 and 1, micro-batches."""

import json

import numpy as np
import pytest
from PIL import Image

from harness.store.records import read_lines

CLASSES, TRAIN, VAL = 3, 16, 7  # images of each class
GRID = """# A vision transformer, whose numbers do not depend on how the ranks share a batch.
defaults:
  - override /dataset: photos_set.yaml
  - override /model: cifar_vit
  - override /recipe: quick
dataset:
  {resolution: 32, crop_scale: [0.3, 1]}
model: {depth: 2, width: 0.25}
augment: {policy: randaug(n=1), flip: true}
recipe: {epochs: 2, batch_size: 16, optimizer: {name: adamw, lr: 1e-3}}
run: {device: cpu, micro_batch_size: 2, loader_threads: 1}
axes: {magnitude: [0.3], seed: [0]}
"""
WIDE = ("cluster=testbed", "cluster.slurm.nodes=2", "cluster.slurm.mem_gb=4")
RUNS = [("ddp", 0, 2), ("deepspeed", 0, 1), ("deepspeed", 1, 2)]  # engine, ZeRO, ranks of a node


@pytest.fixture
def photos(tmp_path):
    """A tree of JPEGs and PNGs of many sizes."""
    random = np.random.default_rng(0)
    for part, count in (("train", TRAIN), ("val", VAL)):
        for label in range(CLASSES):
            folder = tmp_path / "tree" / "photos" / part / f"class{label}"
            folder.mkdir(parents=True)
            for i in range(count):
                coarse = random.integers(0, 256, (4, 5, 3), dtype=np.uint8)
                size = random.integers(40, 90, 2).tolist()
                image = Image.fromarray(coarse).resize(size)
                image.save(folder / f"{i:02}.{'png' if i == 0 else 'JPEG'}")
    return tmp_path / "tree"


def outcome(store):
    """Return result, losses of the epochs, provenance, and which test images were right."""
    (done,) = store.glob("stages/*/*/result.json")
    folder = done.parent
    losses = [line["train_loss"] for line in read_lines(folder / "metrics.jsonl")]
    (record,) = json.loads((folder / "provenance.json").read_text())["records"]
    with np.load(folder / "correct.npz") as correct:
        right = np.unpackbits(correct["test"])
    return json.loads(done.read_text()), losses, record, right


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_nodes_train_as_one_process_does(bed, photos, tmp_path):
    grid, betons = tmp_path / "photos.yaml", tmp_path / "betons"
    grid.write_text(GRID)
    file = tmp_path / "photos_set.yaml"
    file.write_text("name: photos\nvalidation_size: 9\nresolution: 32\n")
    bed.run("harness.data.describe", f"dataset={file}", f"data_root={photos}", cwd=tmp_path)
    said = bed.run(
        "harness.data.write", f"dataset={file}", f"source={photos / 'photos'}", "validation_size=9",
        f"out={betons / 'photos'}", "compress_probability=0.5", cwd=tmp_path,
    )  # fmt: skip
    assert "39 train, 9 validation, 21 test" in said

    def launch(name, *words):
        store = tmp_path / name
        base = f"grid={grid}", f"store={store}", f"run.data_root={betons}"
        bed.run("harness.launch", *base, *words, seconds=600)
        return store

    stores = {
        (engine, zero, ranks): launch(
            f"{engine}{zero}", *WIDE, f"run.engine={engine}", f"run.zero_stage={zero}",
            f"run.processes={2 * ranks}", f"cluster.gpus_per_node={ranks}",
        )
        for engine, zero, ranks in RUNS
    }  # fmt: skip
    bed.drain()
    alone = launch("alone", "cluster=local", "run.engine=ddp")
    expected, expected_losses, record, right = outcome(alone)
    assert (record["loader"], record["world_size"]) == ("ffcv", 1)
    assert expected["test"]["top1"] == pytest.approx(right.sum() / 21)
    for (engine, zero, ranks), store in stores.items():
        result, losses, record, found = outcome(store)
        facts = [record[k] for k in ("engine", "zero_stage", "world_size", "micro_batch_size")]
        assert facts == [engine, zero, 2 * ranks, 2]
        assert losses == pytest.approx(expected_losses, rel=1e-5)
        for split in ("val", "test"):
            assert result[split]["loss"] == pytest.approx(expected[split]["loss"], rel=1e-5)
        assert result["test"]["top1"] == pytest.approx(found.sum() / 21)
        assert result["split_hash"] == expected["split_hash"]

"""Failures of gangs on this machine, in one launch: out of memory, and a broken connection."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.store.store import Store

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
NO_MEMORY, NO_CONNECTION, SMALL_DEVICE = range(3)  # seeds of the stages that fail so
BREAKS = f"""
    seed, met = members[0].config.seed, members[0].store / "met"
    small = seed == {SMALL_DEVICE} and (run.micro_batch_size or 32) > 8
    if small or seed == {NO_MEMORY} and len(members) > 1:
        raise torch.OutOfMemoryError("CUDA out of memory")
    if seed == {NO_CONNECTION} and not met.exists():
        met.touch()
        raise ConnectionResetError("Connection reset by peer")
"""
GRID = """
defaults: [{override /dataset: digits}, {override /model: cifar_resnet}, {override /recipe: quick}]
model: {depth: 8, width: 0.25}
dataset: {train_size: 256, validation_size: 128, test_size: 128}
recipe: {epochs: 1, batch_size: 32}
run: {engine: ddp, gang: 2}
zip: [{seed: [0, 0, 1, 1, 2], magnitude: [0.1, 0.2, 0.1, 0.2, 0.1]}]
"""


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """(seed) -> failures, sizes of the gangs it was tried in, and provenance of each stage."""
    folder = tmp_path_factory.mktemp("broken")
    checkout, store = folder / "checkout", Store(folder / "store")
    for room in ("harness", "grids", "slurm"):
        shutil.copytree(ROOT / room, checkout / room)
    loop = checkout / "harness" / "train" / "loop.py"
    begin = "    first = members[0]\n"
    loop.write_text(loop.read_text().replace(begin, BREAKS.lstrip("\n") + begin, 1))
    assert BREAKS.lstrip("\n") in loop.read_text()
    grid = folder / "broken.yaml"
    grid.write_text(GRID)
    said = subprocess.run(
        [sys.executable, "-m", "harness.launch", f"grid={grid}", f"store={store.root}"],
        cwd=checkout, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert said.returncode == 0, said.stdout + said.stderr
    assert len(list(store.root.glob("stages/*/*/result.json"))) == 5

    def found(seed):
        stages = [
            path
            for path in sorted(store.root.glob("stages/*/*"))
            if json.loads((path / "config.json").read_text())["seed"] == seed
        ]
        failures = [record for path in stages for record in store.failures(path.name)]
        gangs = [
            [len(json.loads(line).get("gang", ["alone"])) for line in text.splitlines()]
            for text in ((path / "attempts.jsonl").read_text() for path in stages)
        ]
        records = [json.loads((path / "provenance.json").read_text())["records"] for path in stages]
        return failures, gangs, records

    return found


def test_a_gang_without_enough_memory_goes_on_as_single_stages(broken):
    failures, gangs, _ = broken(NO_MEMORY)
    assert [record["class"] for record in failures] == ["gang", "gang"]
    assert all("out of memory" in record["message"] for record in failures)
    assert gangs == [[2, 1], [2, 1]]


def test_a_gang_stays_one_where_a_connection_broke(broken):
    failures, gangs, _ = broken(NO_CONNECTION)
    assert [record["class"] for record in failures] == ["transport", "transport"]
    assert gangs == [[2, 2], [2, 2]]


def test_a_device_that_is_too_small_halves_the_micro_batch_until_it_fits(broken):
    failures, gangs, ((record,),) = broken(SMALL_DEVICE)
    assert [(r["class"], r["micro_batch_size"]) for r in failures] == [
        ("out_of_memory", 16), ("out_of_memory", 8),
    ]  # fmt: skip
    assert gangs == [[1, 1, 1]]
    assert record["micro_batch_size"] == 8

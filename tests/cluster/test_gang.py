"""A gang in which something breaks: what its device cannot hold, and what passes."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SMALL_DEVICE = """
    if len(members) > 1:
        raise torch.OutOfMemoryError("CUDA out of memory")
"""
PASSES = """
    if not (met := members[0].root / "met").exists():
        met.touch()
        raise ConnectionResetError("Connection reset by peer")
"""


def launched(make_grid, tmp_path, breaks):
    """The store of two stages that a gang trains; at its start `breaks` runs."""
    checkout = tmp_path / "checkout"
    for room in ("harness", "grids", "slurm"):
        shutil.copytree(ROOT / room, checkout / room)
    loop = checkout / "harness" / "train" / "loop.py"
    begin = "    first = members[0].config\n"
    loop.write_text(loop.read_text().replace(begin, breaks.lstrip("\n") + begin, 1))
    assert breaks in loop.read_text()
    grid, store = make_grid(epochs=1, seeds="0"), tmp_path / "store"
    words = [f"grid={grid}", f"store={store}", "axes.magnitude=[0.1,0.2]", "run.gang=2"]
    said = subprocess.run(
        [sys.executable, "-m", "harness.launch", *words],
        cwd=checkout, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert said.returncode == 0, said.stdout + said.stderr
    assert len(list(store.glob("stages/*/*/result.json"))) == 2
    return store


def failures(store):
    return [json.loads(path.read_text()) for path in store.glob("stages/*/*/failures/*.json")]


def gangs(store):
    """Sizes of the gangs that each stage was tried in."""
    paths = store.glob("stages/*/*/attempts.jsonl")
    return [
        [len(json.loads(line).get("gang", ["alone"])) for line in path.read_text().splitlines()]
        for path in paths
    ]


@pytest.mark.slow
def test_a_gang_without_enough_memory_goes_on_as_single_stages(make_grid, tmp_path):
    store = launched(make_grid, tmp_path, SMALL_DEVICE)
    records = failures(store)
    assert [record["class"] for record in records] == ["gang", "gang"]
    assert all("out of memory" in record["message"] for record in records)
    assert gangs(store) == [[2, 1], [2, 1]]


@pytest.mark.slow
def test_a_gang_stays_one_where_a_connection_broke(make_grid, tmp_path):
    store = launched(make_grid, tmp_path, PASSES)
    assert [record["class"] for record in failures(store)] == ["transport", "transport"]
    assert gangs(store) == [[2, 2], [2, 2]]

"""A gang that its device cannot hold."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_gang_without_enough_memory_goes_on_as_single_stages(make_grid, tmp_path):
    checkout = tmp_path / "checkout"
    for room in ("harness", "grids", "slurm"):
        shutil.copytree(ROOT / room, checkout / room)
    loop = checkout / "harness" / "train" / "loop.py"
    small_device = (
        "    if len(members) > 1:\n"
        '        raise torch.OutOfMemoryError("CUDA out of memory")\n'
        "    first = members[0].config\n"
    )
    loop.write_text(loop.read_text().replace("    first = members[0].config\n", small_device, 1))
    assert small_device in loop.read_text()
    grid, store = make_grid(epochs=1, seeds="0"), tmp_path / "store"
    words = [f"grid={grid}", f"store={store}", "axes.magnitude=[0.1,0.2]", "run.gang=2"]
    said = subprocess.run(
        [sys.executable, "-m", "harness.launch", *words],
        cwd=checkout, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert said.returncode == 0, said.stdout + said.stderr
    assert len(list(store.glob("stages/*/*/result.json"))) == 2
    records = [json.loads(path.read_text()) for path in store.glob("stages/*/*/failures/*.json")]
    assert [record["class"] for record in records] == ["gang", "gang"]
    assert all("out of memory" in record["message"] for record in records)

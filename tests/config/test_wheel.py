"""An installed wheel works without a checkout, and without the extras that train."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UV = Path(sys.executable).with_name("uv")


def run(*words: object, cwd: Path, succeeds: bool = True) -> str:
    """Output of a command that knows nothing of this checkout."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL"))}
    process = subprocess.run(
        [str(word) for word in words],
        cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    output = process.stdout + process.stderr
    assert (process.returncode == 0) is succeeds, output
    return output


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Python of a fresh environment with the wheel and what it requires, and nothing else.

    Everything comes out of the cache that the set-up of this environment filled.
    """
    folder = tmp_path_factory.mktemp("wheel")
    offline = ("--offline", "--constraint", ROOT / "constraints.txt")
    run(
        UV, "build", "--wheel", "--no-build-isolation", "--python", sys.executable,
        "--out-dir", folder / "dist", ROOT, cwd=folder,
    )  # fmt: skip
    run(UV, "venv", "--python", sys.executable, folder / "env", cwd=folder)
    (wheel,) = (folder / "dist").glob("*.whl")
    python = folder / "env" / "bin" / "python"
    run(UV, "pip", "install", "--python", python, *offline, wheel, cwd=folder)
    return python


@pytest.fixture
def empty(tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder


@pytest.mark.slow
def test_a_wheel_plans_the_quickstart_from_an_empty_folder(installed, empty):
    output = run(installed, "-m", "harness.launch", "grid=quickstart", "dry_run=true", cwd=empty)
    assert "48 trials" in output
    assert "72 stages" in output
    assert list(empty.iterdir()) == []


@pytest.mark.slow
def test_a_wheel_plans_every_shipped_grid_and_knows_every_profile(installed, empty):
    grids = sorted(path.stem for path in (ROOT / "grids/grid").glob("*.yaml"))
    profiles = sorted(path.stem for path in (ROOT / "slurm/cluster").glob("*.yaml"))
    code = (
        "import sys\n"
        "from harness.config import grid_files, load\n"
        "from harness.config.grid_file import choices\n"
        "from harness.sweep.plan import make_plan\n"
        "for grid in grid_files(): assert make_plan(load([f'grid={grid}']).grid).stages, grid\n"
        "assert 'torch' not in sys.modules\n"
        "print(*grid_files()); print(*choices('cluster'))\n"
    )
    lines = run(installed, "-c", code, cwd=empty).splitlines()
    assert lines[0].split() == grids
    assert lines[1].split() == profiles


@pytest.mark.slow
def test_a_wheel_makes_a_table_of_anyones_rows(installed, empty):
    rows = ROOT / "docs" / "results" / "size_vs_magnitude" / "rows.csv"
    output = run(installed, "-m", "analysis.table", f"rows={rows}", cwd=empty)
    assert "width" in output


@pytest.mark.slow
def test_a_launch_without_the_extras_says_what_to_install(installed, empty):
    sentence = "training needs torch and deepspeed"
    words = (installed, "-m", "harness.launch", "grid=quickstart")
    refused = run(*words, cwd=empty, succeeds=False)
    assert sentence in refused
    assert "with its extra [train]" in refused
    assert "Traceback" not in refused
    assert list(empty.iterdir()) == []
    assert sentence in run(*words, "dry_run=true", cwd=empty)

"""The import contract of pyproject.toml: it is whole, and it notices what it forbids."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINTER = Path(sys.executable).with_name("lint-imports")
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
LAYERS = [[name.strip() for name in layer.split("|")] for layer in CONFIG["contracts"][0]["layers"]]
# The design's order, from the ground up; what may stand beside or between them is free.
ORDER = [
    "harness.errors", "harness.schema", "harness.store", "harness.data", "harness.compress",
    "harness.sweep", "harness.config", "harness.train", "harness.cluster", "analysis",
]  # fmt: skip


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(LINTER), "--no-cache"], cwd=folder, env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


@pytest.fixture
def copy(tmp_path):
    for name in ("harness", "analysis"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_every_module_has_its_layer_and_no_import_is_excepted():
    listed = {name for layer in LAYERS for name in layer}
    modules = {
        f"harness.{path.stem}"
        for path in (ROOT / "harness").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert modules - {"harness.__init__"} <= listed
    for contract in CONFIG["contracts"]:
        assert not {"ignore_imports", "ignore_type_checking_imports", "exhaustive_ignores"} & set(
            contract
        )
    assert "exclude_type_checking_imports" not in CONFIG


def test_layers_are_in_the_order_of_the_design():
    heights = {name: -number for number, layer in enumerate(LAYERS) for name in layer}
    assert [heights[name] for name in ORDER] == sorted({heights[name] for name in ORDER})
    commands = [name for name in heights if name in ("harness.launch", "harness.status")]
    assert all(
        heights["harness.cluster"] < heights[name] < heights["analysis"] for name in commands
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "statement"),
    [
        ("harness/store/store.py", "from harness.sweep import plan"),
        ("harness/store/store.py", "def f():\n    from harness.cluster import slurm"),
        ("harness/data/splits.py", "from harness.train import optim"),
        ("harness/sweep/plan.py", "if TYPE_CHECKING:\n    import harness.train.loop"),
        ("harness/train/loop.py", "import analysis.best"),
        ("harness/errors.py", "import harness.files"),
        ("harness/data/types.py", "import harness.data.loader"),
        ("harness/statistics/estimates.py", "import harness.schema"),
        ("analysis/cells.py", "def f():\n    import analysis.best"),
    ],
)  # fmt: skip
def test_an_import_upwards_or_in_a_circle_is_noticed(copy, module, statement):
    with (copy / module).open("a") as file:
        file.write(f"\n{statement}\n")
    process = lint(copy)
    assert process.returncode != 0
    assert "BROKEN" in process.stdout
    assert module.rpartition("/")[2].removesuffix(".py") in process.stdout.partition("Broken")[2]


@pytest.mark.slow
def test_the_tree_keeps_the_contract():
    process = lint(ROOT)
    assert process.returncode == 0, process.stdout

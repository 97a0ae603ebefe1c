"""A copy of the harness with an additional data set, for commands that run in other processes."""

import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def checkout(folder: Path, row: str) -> None:
    """Copy the harness into `folder`, and add `row`, a line of code, to the rows of its catalog."""
    for name in ("harness", "grids", "slurm"):
        shutil.copytree(ROOT / name, folder / name)
    catalog = folder / "harness/data/catalog.py"
    catalog.write_text(catalog.read_text().replace("_ROWS = (", f"_ROWS = (\n    {row},", 1))

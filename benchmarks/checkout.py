"""A copy of the harness with one data set more, for what runs it in processes of its own."""

import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def checkout(folder: Path, row: str) -> None:
    """Copy the harness into `folder`; `row` is code, the first of its catalog's."""
    for room in ("harness", "grids", "slurm"):
        shutil.copytree(ROOT / room, folder / room)
    catalog = folder / "harness/data/catalog.py"
    catalog.write_text(catalog.read_text().replace("_ROWS = (", f"_ROWS = (\n    {row},", 1))

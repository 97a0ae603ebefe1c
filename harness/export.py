"""python -m harness.export grid=NAME out=DIR [where=CONDITION] [key=value ...]

Write the final networks of finished trials, each into a folder of its own (docs/export.md).

    python -m harness.export grid=quickstart out=out/networks
    python -m harness.export grid=quickstart out=out/networks where="width == 0.5 and seed == 0"

Without where=, these are the networks of the best magnitude of each size, chosen on validation as
in the table (analysis.table), of the first seed. A folder has the weights (model.safetensors),
what a user has to know (config.json), and a model card (README.md).

    out=DIR           a folder that does not exist yet, or is empty
    where=CONDITION   exactly these trials instead, as in analysis.table
    seeds=all         every seed of the best magnitude
    onnx=false        without model.onnx
    by=width,...      the columns that define a size; metric=top1|loss: chosen by it

In Python, `harness.export.load("DIR/NAME")` returns the network as a torch module.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.chosen import OPTIONS as CHOICE
from analysis.chosen import Chosen, read_chosen
from analysis.commands import output_folder
from harness.arguments import Option
from harness.config import Launch
from harness.errors import UserError, command
from harness.files import explained, make_folder
from harness.store import provenance
from harness.store.store import Store
from harness.sweep.plan import Plan, make_plan, without_trunk

if TYPE_CHECKING:
    from torch import nn

OPTIONS = {
    **CHOICE,
    "out": Option(required=True, example="out/networks"),
    "onnx": Option(bool, default=True),
}
LONGEST_NAME = 100  # characters of a folder's name, before the id


def load(folder: str | Path) -> nn.Module:
    """Return the network of one exported folder, in eval mode on the CPU.

    Raises:
        UserError: a file is missing, damaged, or of another version.
    """
    from harness.deploy import folder as folders  # imports torch

    return folders.load(folder)


def main(args: list[str]) -> int:
    """Export the chosen networks; return the exit code."""
    launch, options, chosen = read_chosen(args, OPTIONS)
    out = _new_folder(options["out"])
    if options["onnx"]:
        _check_onnx()
    with explained(out):
        make_folder(out.parent)
        temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        temporary.chmod(0o755)
    try:
        names = _write(launch, chosen, temporary, options["onnx"])
        with explained(out):
            temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for name in names:
        print(f"written: {out / name}")
    return 0


def _new_folder(text: str) -> Path:
    """Return the folder `out`. Raises UserError if it holds anything, or cannot be written."""
    out = output_folder(text).absolute()
    if out.exists() and not out.is_dir():
        raise UserError(f"out={text} is a file: choose another folder")
    if out.is_symlink():
        raise UserError(f"out={text} is a link: choose the folder itself, or another one")
    if out.is_dir() and any(out.iterdir()):
        raise UserError(
            f"out={text} holds other files, which an export does not replace: choose another "
            "folder, or delete it"
        )
    return out


def _check_onnx() -> None:
    """Raise UserError if packages are missing, before networks are read."""
    from harness.deploy.onnx_file import missing_packages  # imports torch

    if missing := missing_packages():
        raise UserError(
            f"ONNX needs {', '.join(missing)}, not installed here: pip install "
            f"{' '.join(missing)}, or leave it out with onnx=false"
        )


def _write(launch: Launch, chosen: Sequence[Chosen], out: Path, with_onnx: bool) -> list[str]:
    """Write the folder of each network into `out`; return their names."""
    from harness.deploy import folder as folders  # imports torch
    from harness.deploy.card import card
    from harness.deploy.onnx_file import write_onnx

    plan, store = make_plan(launch.grid), Store(launch.store)
    names = []
    for item in chosen:
        config = plan.stages[item.stage]
        module, masks = folders.read_network(store, item.stage, config)
        description = folders.describe(
            module, masks, config, item.stage, item.trial, launch.run.data_root
        )
        path = [plan.stages[stage] for stage in without_trunk(plan, plan.paths[item.trial])]
        record = (provenance.records(store.folder(item.stage)) or [{}])[-1]
        text = card(item.row, config, path, description, item.how, record)
        names.append(_name(plan, item))
        folder, image = make_folder(out / names[-1]), description["input"]
        if with_onnx:
            onnx = write_onnx(folder, module, image["channels"], image["resolution"])
            description |= {"onnx": onnx}
        folders.write(folder, module, description, text)
    return names


def _name(plan: Plan, item: Chosen) -> str:
    """Return a folder's name: the values of the trial on the axes, and the begin of its id."""
    cell = next(trial.cell for trial in plan.trials if trial.id == item.trial)
    axes = "_".join(f"{name.rpartition('.')[2]}-{value}" for name, value in cell.items())
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '-', axes)[:LONGEST_NAME]}_{item.trial[:8]}"


if __name__ == "__main__":
    command(main, __doc__)

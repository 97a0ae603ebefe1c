"""Which files of a data set a run reads, and what would keep it from them.

Torch-free: a launch, its dry run and the doctor say beforehand what a worker would find out.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.data.catalog import CATALOG, DatasetInfo, missing, tree, written
from harness.data.manifest import read_fitting
from harness.errors import UserError
from harness.schema import DatasetConfig

INSTALL_FFCV = (
    "install it with `pip install '.[ffcv]'`, which needs g++, pkg-config, libopencv-dev and "
    "libturbojpeg0-dev"
)
Trouble = Callable[[], str | None]
"""Why FFCV cannot be used here, and what to do about it; None if it can."""


@dataclass(frozen=True)
class Source:
    """The loader that reads a set, the folder of its files (None: in memory), and the reason."""

    loader: Literal["resident", "ffcv", "imagefolder"]
    folder: Path | None
    why: str


def ffcv_absent() -> str | None:
    """Whether FFCV is not installed: at once, where importing it takes seconds."""
    if importlib.util.find_spec("ffcv") is None:
        return f"FFCV is not installed: {INSTALL_FFCV}"
    return None


def choose(info: DatasetInfo, data_root: str | None, loader: str, trouble: Trouble) -> Source:
    """What `run.loader` comes to for this data set.

    Raises:
        UserError: a loader that cannot read the set, or files that are not there.
    """
    if info.module is not None and loader in ("auto", "resident"):
        return Source("resident", None, "in memory")
    betons, files = written(info, data_root), tree(info, data_root)
    if loader == "resident":
        raise UserError(
            f"run.loader=resident holds a whole data set in memory, and the images of {info.name} "
            "come in any size: use ffcv, imagefolder or auto."
        )
    if loader == "auto":
        if betons is None and files is None:
            raise UserError(str(missing(info, data_root)))
        broken = trouble() if betons is not None else None
        if betons is not None and broken is None:
            return Source("ffcv", betons, f"{betons} holds .beton files")
        if files is None:
            raise UserError(
                f"{betons} holds .beton files, and {broken}; or put the folders train/ and val/ "
                "there, for run.loader=imagefolder."
            )
        return Source("imagefolder", files, broken or f"{files} holds no .beton files")
    if loader == "ffcv":
        if betons is None:
            raise UserError(
                f"run.loader=ffcv needs .beton files of {info.name} under run.data_root or data/: "
                f"write them with `python -m harness.data.write dataset={info.name} source=DIR "
                f"out=ROOT/{info.name}`."
            )
        if (broken := trouble()) is not None:
            raise UserError(f"run.loader=ffcv: {broken}; or use run.loader=imagefolder.")
        return Source("ffcv", betons, "run.loader asks for it")
    if info.module is not None:
        raise UserError(
            f"run.loader=imagefolder reads a tree of image files, and {info.name} is none: use "
            "resident or auto."
        )
    if files is None:
        raise UserError(
            f"run.loader=imagefolder needs the folders train/ and val/ of {info.name} in "
            f"<root>/{info.name}, with run.data_root=<root> or under data/."
        )
    return Source("imagefolder", files, "run.loader asks for it")


def problem(
    config: DatasetConfig, data_root: str | None, loader: str, trouble: Trouble = ffcv_absent
) -> str | None:
    """A sentence about what keeps a run from the images of `config`; None if nothing does."""
    info = CATALOG[config.name]
    try:
        found = choose(info, data_root, loader, trouble)
        if found.loader == "ffcv" and found.folder is not None:
            read_fitting(found.folder, config, info)
    except UserError as error:
        return str(error)
    return missing(info, data_root) if found.loader == "resident" else None

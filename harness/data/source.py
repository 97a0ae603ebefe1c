"""Choose the loader and the files that a run reads, or report why it cannot read a data set.

This module does not import torch, because a launch, its dry run and the doctor use it to report
mistakes that would stop a worker.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.data.catalog import (
    DatasetInfo,
    find_betons,
    find_tree,
    info_of,
    missing,
    shown,
    unsuited,
)
from harness.data.manifest import read_fitting
from harness.data.tree import check_files, class_names, scan_parts
from harness.errors import UserError
from harness.schema import DatasetConfig

INSTALL_FFCV = (
    "install it with `pip install '.[ffcv]'`, which needs g++, pkg-config, libopencv-dev and "
    "libturbojpeg0-dev"
)
MOST_CHECKED = 200_000
"""Images of a user's own set up to which a launch compares the names and sizes of all files.

That takes about 4 s (0.97 s for 52,500 files on a local disk). Jobs compare them for any number.
"""
FfcvCheck = Callable[[], str | None]
"""Returns why FFCV cannot be used here, and the remedy; None if it can be used."""


@dataclass(frozen=True)
class Source:
    """The loader of a data set, the folder of its files (None for sets in memory), and why."""

    loader: Literal["resident", "ffcv", "imagefolder"]
    folder: Path | None
    reason: str


def ffcv_absent() -> str | None:
    """Return a sentence if FFCV is not installed. It is not imported, as that takes seconds."""
    if importlib.util.find_spec("ffcv") is None:
        return f"FFCV is not installed: {INSTALL_FFCV}"
    return None


def choose(info: DatasetInfo, data_root: str | None, loader: str, why_no_ffcv: FfcvCheck) -> Source:
    """Return the source of the data set's images. `loader` is `run.loader`.

    Raises:
        UserError: the loader cannot read the set, or the files are missing.
    """
    if info.reader is not None and loader in ("auto", "resident"):
        return Source("resident", None, "in memory")
    if sentence := unsuited(info, loader):
        raise UserError(f"run.loader={sentence}.")
    betons, tree = find_betons(info, data_root), find_tree(info, data_root)
    if loader == "auto":
        if betons is None and tree is None:
            raise UserError(str(missing(info, data_root)))
        no_ffcv = why_no_ffcv() if betons is not None else None
        if betons is not None and no_ffcv is None:
            return Source("ffcv", betons, f"{shown(betons)} holds .beton files")
        if tree is None:
            assert betons is not None
            raise UserError(
                f"{shown(betons)} holds .beton files, and {no_ffcv}; or put the folders "
                f"{info.places} there, for run.loader=imagefolder."
            )
        return Source("imagefolder", tree, no_ffcv or f"{shown(tree)} does not hold .beton files")
    if loader == "ffcv":
        if betons is None:
            raise UserError(
                f"run.loader=ffcv needs .beton files of {info.name} under run.data_root or data/: "
                f"write them with `python -m harness.data.write dataset={info.name} source=DIR "
                f"out=ROOT/{info.name}`."
            )
        if (no_ffcv := why_no_ffcv()) is not None:
            raise UserError(f"run.loader=ffcv: {no_ffcv}; or use run.loader=imagefolder.")
        return Source("ffcv", betons, "set by run.loader")
    if tree is None:
        raise UserError(
            f"run.loader=imagefolder needs the folders {info.places} of {info.name} in "
            f"<root>/{info.name}, with run.data_root=<root> or under data/."
        )
    return Source("imagefolder", tree, "set by run.loader")


def problem(
    config: DatasetConfig, data_root: str | None, loader: str, why_no_ffcv: FfcvCheck = ffcv_absent
) -> str | None:
    """Return a sentence if a run cannot read the images of `config`; None if it can."""
    info = info_of(config)
    try:
        source = choose(info, data_root, loader, why_no_ffcv)
        if source.loader == "ffcv" and source.folder is not None:
            read_fitting(source.folder, config, info)
        if source.loader == "imagefolder" and source.folder is not None:
            count = len(class_names(source.folder, info.places))
            if count != info.num_classes:
                raise UserError(
                    f"{shown(source.folder)} has {count:,} class folders, and {info.name} has "
                    f"{info.num_classes:,} classes: complete the folder, or choose another one."
                )
            if info.content is not None and info.train_size + info.test_size <= MOST_CHECKED:
                check_files(info, *scan_parts(source.folder, info.places))
    except UserError as error:
        return str(error)
    return missing(info, data_root) if source.loader == "resident" else None

"""How many examples of each class a finished stage classifies correctly.

New stages have these counts beside their bits per example. For older ones they are made from the
bits and from the labels of the data set, which is then opened; no image is decoded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.data.datasets import load
from harness.errors import UserError
from harness.files import Damaged
from harness.schema import DatasetConfig
from harness.statistics import ClassCounts
from harness.store.correct import bits_of, counts_of, read
from harness.store.store import CORRECT_DIGEST, Store

SPLITS = {"val": "validation", "test": "test"}


def class_counts(
    store: Store,
    stage: str,
    result: Mapping[str, Any],
    config: DatasetConfig,
    data_root: str | None = None,
    loader: str = "auto",
) -> dict[str, ClassCounts] | str:
    """Return the class counts of `val` and `test`, or the reason why they are not known.

    `result` is that of the stage, `config` its data set; `data_root` and `loader` are those of the
    run, and are used only for stages without recorded counts.
    """
    path = store.folder(stage) / "correct.npz"
    try:
        arrays = read(path, str(result.get(CORRECT_DIGEST)))
    except FileNotFoundError:
        return f"{path} is missing"
    except Damaged as error:
        return str(error)
    counts = {side: counts_of(arrays, split) for side, split in SPLITS.items()}
    recorded = {side: count for side, count in counts.items() if count is not None}
    if len(recorded) == len(SPLITS):
        return recorded
    try:
        dataset = load(config, data_root, loader)
    except UserError as error:
        return str(error)
    if result.get("split_hash") != dataset.split_hash:
        return f"the images of {config.name} here are not those that stage {stage} was tested on"
    return {
        side: ClassCounts.of(
            dataset.splits[split].labels,  # type: ignore[index]
            bits_of(arrays, split),
            dataset.info.num_classes,
        )
        for side, split in SPLITS.items()
    }

"""Records of evaluations beside a stage: `evaluations/<id>.json`, and its bits in `<id>.npz`.

The id is the digest of what the stage was evaluated on. A record is written after its bits, and
both atomically. Equal work gives equal records, so it does no harm if two processes write one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.files import Damaged, atomic_write, make_folder, move_aside
from harness.store.correct import packed, read
from harness.store.records import (
    Count,
    Record,
    Seconds,
    Share,
    check,
    check_seal,
    misplaced,
    read_json,
    write_sealed,
)
from harness.store.store import Store

FOLDER = "evaluations"


class _Accuracy(Record):
    top1: Share


class _Evaluation(Record):
    """The keys of a record that are checked when it is read."""

    stage: str
    evaluation: str
    val: _Accuracy
    test: _Accuracy
    images: Count
    seconds: Seconds
    bits_sha256: str


def record_path(store: Store, stage: str, evaluation: str) -> Path:
    """Return the path of a stage's record of an evaluation, by the id of what it is on."""
    return store.folder(stage) / FOLDER / f"{evaluation}.json"


def make_place(path: Path) -> None:
    """Make the folder of a record; move a link, or an entry of a wrong kind, out of its place.

    Raises CannotWrite.
    """
    if problem := misplaced(path.parent, is_folder=True):
        move_aside(path.parent, problem)
    make_folder(path.parent)
    if problem := misplaced(path):
        move_aside(path, problem)


def read_evaluation(store: Store, stage: str, evaluation: str) -> dict[str, Any] | None:
    """Return a stage's record of an evaluation, or None if there is none.

    Raises Damaged if the record is not what was written.
    """
    path = record_path(store, stage, evaluation)
    if problem := misplaced(path.parent, is_folder=True):
        raise Damaged(problem)
    try:
        record = read_json(path)
    except FileNotFoundError:
        return None
    check_seal(path, record, ())
    content = check(path, record, _Evaluation)
    if (content.stage, content.evaluation) != (stage, evaluation):
        raise Damaged(f"{path} is a record of {content.stage} on {content.evaluation}")
    return record


def write_evaluation(
    store: Store,
    stage: str,
    evaluation: str,
    record: Mapping[str, Any],
    bits: Mapping[str, NDArray[np.bool_]],
) -> None:
    """Write a record and its bits per example. Raises CannotWrite.

    A link, or an entry of a wrong kind, in the place of a file is moved aside.
    """
    path = record_path(store, stage, evaluation)
    content = packed(bits)
    for file in (path, path.with_suffix(".npz")):
        make_place(file)
    atomic_write(path.with_suffix(".npz"), content)
    digest = hashlib.sha256(content).hexdigest()
    sealed = {"stage": stage, "evaluation": evaluation, **record, "bits_sha256": digest}
    write_sealed(path, sealed)


def read_bits(store: Store, stage: str, record: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Return the arrays of a record's bits (`correct.bits_of`). Raises as `correct.read` does."""
    path = record_path(store, stage, record["evaluation"]).with_suffix(".npz")
    return read(path, record["bits_sha256"])

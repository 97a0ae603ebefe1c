"""Records of measured latencies beside a stage: `evaluations/<id>.json`.

The id is the digest of what the latency is of: device, runtime, threads and batch sizes. Measuring
again on the same device replaces the record. It is never part of a stage's identity.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from harness.files import Damaged
from harness.store.evaluations import FOLDER, make_place, record_path
from harness.store.identity import digest
from harness.store.records import (
    Count,
    Record,
    Seconds,
    check,
    check_seal,
    misplaced,
    read_json,
    write_sealed,
)
from harness.store.store import Store

KIND = "latency"
SINGLE, MANY = 1, 64  # images of a batch: of the latency, and of the throughput
Milliseconds = Annotated[float, Field(gt=0, le=1e12)]


class _Times(Record):
    median_ms: Milliseconds
    low_ms: Milliseconds
    high_ms: Milliseconds
    repeats: Count


class _Latency(Record):
    """The keys of a record that are checked when it is read."""

    kind: Literal["latency"]
    stage: str
    device: str
    runtime: str
    threads: Count
    batches: dict[Literal["1", "64"], _Times]
    measured_at: Seconds


def write_latency(store: Store, stage: str, record: Mapping[str, Any]) -> None:
    """Write the record of a finished stage. Raises CannotWrite.

    `record` has device, runtime, threads, `batches` (by the number of images: `median_ms`, the
    quartiles `low_ms` and `high_ms`, `repeats`), and the time `measured_at`.
    """
    subject = {name: record[name] for name in ("device", "runtime", "threads")}
    subject |= {"kind": KIND, "batches": sorted(record["batches"])}
    path = record_path(store, stage, digest(subject))
    make_place(path)
    write_sealed(path, {"kind": KIND, "stage": stage, **record})


def read_latencies(store: Store, stage: str) -> list[dict[str, Any]]:
    """Return the records of a stage, one for each device; a damaged one is left out, with a note.

    Other evaluations in the same folder are not read as latencies.
    """
    folder = store.folder(stage) / FOLDER
    if misplaced(folder, is_folder=True) or not folder.is_dir():
        return []
    latencies = []
    for path in sorted(folder.glob("*.json")):
        try:
            record = read_json(path)
            if record.get("kind") != KIND:
                continue
            check_seal(path, record, ())
            if check(path, record, _Latency).stage != stage:
                raise Damaged(f"{path} is of stage {record['stage']}")
            latencies.append(record)
        except FileNotFoundError:
            continue
        except Damaged as error:
            print(f"warning: {error}: run harness.latency again", file=sys.stderr)
    return latencies

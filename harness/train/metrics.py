"""The metrics of a stage: a row per epoch in `metrics.jsonl`, and copies for a tracker."""

from __future__ import annotations

import json
from typing import Any

from harness.files import append_line, atomic_write
from harness.store.records import Count, Record, read_lines
from harness.train.gang import Gang, Member
from harness.train.trackers import Tracker


class _Row(Record):
    step: Count


class Metrics:
    """The metrics of one stage, which only rank 0 writes.

    `step` is where the stage starts or continues.
    """

    def __init__(self, member: Member, gang: Gang, step: int):
        self.path = member.folder / "metrics.jsonl"
        self.is_writer = gang.world.rank == 0
        if self.is_writer and self.path.exists():
            self._drop_rows_after(step)
        self.tracker = Tracker(
            gang.run.tracker if self.is_writer else "none",
            member.store,
            member.stage_id,
            member.config.model_dump(mode="json"),
            step,
        )

    def _drop_rows_after(self, step: int) -> None:
        """Remove the rows of epochs that are trained again."""
        rows = [row for row in read_lines(self.path, _Row) if row["step"] <= step]
        atomic_write(self.path, "".join(json.dumps(row) + "\n" for row in rows).encode())

    def write_epoch(self, row: dict[str, Any]) -> None:
        """Append the row of an epoch, and copy it to the tracker."""
        if self.is_writer:
            append_line(self.path, row)
            self.tracker.log(row)

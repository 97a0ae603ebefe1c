"""The metrics of a stage: a row per epoch in `metrics.jsonl`, and copies for a tracker."""

from __future__ import annotations

import json
from typing import Any

from harness.files import append_line, atomic_write
from harness.schema import StageConfig
from harness.store.records import Count, Record, read_lines
from harness.train.gang import Gang, Member
from harness.train.trackers import Tracker


class _Row(Record):
    step: Count


def describe(config: StageConfig) -> str:
    """Return the name of a stage in logs, such as `width 0.5, randaug(n=2, m=0.3), seed 1`."""
    parts = [f"width {config.model.width:g}", config.augment.policy, f"seed {config.seed}"]
    if config.prune is not None:
        parts.append(f"sparsity {config.prune.sparsity:g}")
    if config.surplus is not None:
        parts.append(config.surplus.form)
    return ", ".join(parts)


class Metrics:
    """The metrics of one stage, which only rank 0 writes.

    `step` is where the stage starts or continues.
    """

    def __init__(self, member: Member, gang: Gang, step: int):
        self.path = member.folder / "metrics.jsonl"
        self.name = f"{member.stage_id} ({describe(member.config)})"
        self.epochs = member.config.recipe.epochs
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
        """Append the row of an epoch, copy it to the tracker, and print a line about it."""
        if self.is_writer:
            append_line(self.path, row)
            self.tracker.log(row)
            loss = "not finite" if row["train_loss"] is None else f"{row['train_loss']:.4f}"
            print(f"{self.name} epoch {row['epoch']} of {self.epochs}: loss {loss}", flush=True)

    def copy_scores(self, step: int, top1: float, loss: float) -> None:
        """Copy the final validation scores to the tracker; `metrics.jsonl` has training only."""
        self.tracker.log({"step": step, "val_top1": top1, "val_loss": loss})
        if self.is_writer:
            print(f"{self.name}: validation accuracy {top1:.4f}, loss {loss:.4f}", flush=True)

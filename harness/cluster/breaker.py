"""The circuit breaker: the jobs of a launch end when its first stages all fail the same way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.cluster import failure
from harness.cluster.job_registry import GAVE_UP
from harness.cluster.submission import Submission
from harness.files import atomic_write
from harness.store.store import Store


def reason_to_give_up(folder: Path) -> str | None:
    """Return why no job of the submission in `folder` may go on, or None where they may."""
    try:
        return (folder / GAVE_UP).read_text(errors="replace")
    except OSError:
        return None


def trip_if_alike(
    submission: Submission, store: Store, folder: Path, record: dict[str, Any]
) -> None:
    """End the launch's jobs when `BREAKER` stages failed like `record` and none is done.

    This covers the submission in `folder` and the launch's other arrays of which no stage is done.
    """
    stages = submission.all_stages()
    if any(store.is_done(stage) for stage in stages):
        return
    signature = failure.signature(record)
    count = 0
    for stage in stages:
        last = store.failures(stage)[-1:]
        count += bool(last) and failure.signature(last[0]) == signature
    if count >= failure.BREAKER:
        reason = f"{count} stages failed and none is done: {signature}"
        for path in folder.parent.glob("*/submission.json"):
            other = Submission.read(path)
            if not any(store.is_done(stage) for stage in other.all_stages()):
                atomic_write(path.parent / GAVE_UP, reason.encode())

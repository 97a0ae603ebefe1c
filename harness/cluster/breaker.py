"""The circuit breaker: jobs stop where the first stages of a submission fail alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.cluster import failure
from harness.cluster.queued import GAVE_UP
from harness.cluster.submission import Submission
from harness.files import atomic_write
from harness.store.store import Store


def gave_up(folder: Path) -> str | None:
    """Why no job of this submission should go on; None where nothing speaks against it."""
    try:
        return (folder / GAVE_UP).read_text()
    except OSError:
        return None


def trip_others(submission: Submission, store: Store, folder: Path, record: dict[str, Any]) -> None:
    """Where the first stages of a submission fail alike and none is done, stop its jobs.

    And those of the launch's other arrays, as far as none of theirs is done either.
    """
    stages = [s for part in submission.parts for gang in part for s in gang]
    if any(store.is_done(stage) for stage in stages):
        return
    said = failure.signature(record)
    alike = 0
    for stage in stages:
        last = store.failures(stage)[-1:]
        alike += bool(last) and failure.signature(last[0]) == said
    if alike >= failure.BREAKER:
        text = f"{alike} stages failed and none is done: {said}"
        for path in folder.parent.glob("*/submission.json"):
            other = Submission.read(path)
            if not any(store.is_done(s) for part in other.parts for gang in part for s in gang):
                atomic_write(path.parent / GAVE_UP, text.encode())

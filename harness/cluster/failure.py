"""Failures have a class, and the class decides what happens next.

| class         | again?              | because                                               |
| ------------- | ------------------- | ----------------------------------------------------- |
| out_of_memory | with `retry=failed` | the same stage on the same machine runs out again     |
| config        | with `retry=failed` | a sentence for the user says what to mend             |
| code          | with `retry=failed` | an unexpected exception would only repeat             |

Not failures of a stage: training that turns to NaN ("diverged" is its result); a worker that dies
without a word (its claim goes stale, the stage goes on from its last checkpoint); a store that
cannot be written (the worker ends and says so, the next launch goes on).
"""

from __future__ import annotations

import traceback
from typing import Any

from harness.errors import UserError

RETRY = "retry"  # a record of this class is no failure but the user's word to try again
BREAKER = 3
"""So many stages failing the same way, before any has succeeded, stop a worker."""


def classify(error: BaseException) -> str:
    """Class of an exception that ended a stage."""
    names = {cls.__name__ for cls in type(error).__mro__}
    if names & {"OutOfMemoryError", "MemoryError"}:
        return "out_of_memory"
    return "config" if isinstance(error, UserError) else "code"


def describe(error: BaseException, job: str, attempt: int) -> dict[str, Any]:
    """The record for `failures/NNN.json`: class, one-line message, where, whole traceback."""
    trace = traceback.extract_tb(error.__traceback__)
    where = f"{trace[-1].filename.rpartition('/')[2]}:{trace[-1].lineno}" if trace else ""
    message = " ".join(str(error).split())[:500] or type(error).__name__
    return {
        "class": classify(error),
        "error": type(error).__name__,
        "message": message,
        "where": where,
        "traceback": "".join(traceback.format_exception(error))[-20_000:],
        "job": job,
        "attempt": attempt,
    }


def blocks(failures: list[dict[str, Any]]) -> bool:
    """Whether a stage with these failures waits for the user: its last one would only repeat."""
    return bool(failures) and failures[-1].get("class") != RETRY

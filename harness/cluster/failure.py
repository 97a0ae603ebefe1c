"""Failures have a class, and the class decides what happens next.

| class         | again?                               | because                                 |
| ------------- | ------------------------------------ | --------------------------------------- |
| preempted     | always, free                         | SLURM or an admin took the machine      |
| time_limit    | goes on; 3 times without a step: no  | a limit is no failure, a step must fit  |
| lost          | 5 times at one step                  | node or process ended without a word    |
| start         | 3 times                              | a node may be broken: no GPU, no peers  |
| transport     | 5 times at one step, with a pause    | connections between ranks break         |
| host_memory   | 3 times, with twice the memory each  | up to `cluster.slurm.max_mem_gb`        |
| out_of_memory | with half the micro-batch, down to 1 | the global batch stays what it was      |
| gang          | each member alone                    | one of them failed, which one shows; or |
|               |                                      | all together took too much host memory  |
| config        | with `retry=failed`                  | a sentence says what to mend            |
| code          | with `retry=failed`                  | an unexpected exception only repeats    |

Not failures of a stage: training that turns to NaN ("diverged" is its result); a store that cannot
be written (the worker ends and says so, the next launch goes on). A stage that fails for good keeps
its checkpoints. The same failure in `BREAKER` stages before any is done stops the sweep.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.files import read_lines
from harness.store.claims import ClaimState
from harness.store.store import UNREADABLE, Store

RETRY = "retry"  # a record of this class is no failure but the user's word to try again
BREAKER = 3
FREE = ("preempted", RETRY, UNREADABLE)
TRIES = {"start": 3, "lost": 5, "transport": 5, "host_memory": 3, "time_limit": 3}
MEMORY = re.compile(  # SLURM's words and the kernel's; a GPU's "out of memory" is no such thing
    r"exceeded memory limit|oom[-_ ]?kill|out[-_]of[-_]memory|Out of memory: Killed", re.IGNORECASE
)
_CONNECTION = re.compile(
    r"NCCL|gloo|Connection (closed|reset|refused)|Socket|Broken pipe|timed? ?out", re.IGNORECASE
)
_TAIL_BYTES = 4096


def classify(error: BaseException) -> str:
    """Class of an exception that ended a stage."""
    names = {cls.__name__ for cls in type(error).__mro__}
    if names & {"OutOfMemoryError", "MemoryError"} or "can't allocate memory" in str(error):
        return "out_of_memory"  # the words are those of torch's allocator on a CPU
    if isinstance(error, UserError):
        return "config"
    if names & {"DistBackendError", "DistNetworkError", "DistStoreError", "ConnectionError"}:
        return "transport"
    if type(error) is RuntimeError and _CONNECTION.search(str(error)):
        return "transport"
    return "code"


def describe(error: BaseException, **where: Any) -> dict[str, Any]:
    """The record for `failures/NNN.json`: class, one-line message, where, whole traceback."""
    trace = traceback.extract_tb(error.__traceback__)
    place = f"{trace[-1].filename.rpartition('/')[2]}:{trace[-1].lineno}" if trace else ""
    message = " ".join(str(error).split())[:500] or type(error).__name__
    return {
        "class": classify(error),
        "error": type(error).__name__,
        "message": message,
        "where": place,
        "traceback": "".join(traceback.format_exception(error))[-20_000:],
        **where,
    }


def memory_complaint(log: Path | None) -> str:
    """What SLURM or the kernel said of memory at the end of a log, if anything."""
    if log is None:
        return ""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _TAIL_BYTES))
            found = MEMORY.search(file.read().decode(errors="replace"))
    except OSError:
        return ""
    return found[0] if found else ""


def lost(store: Store, seen: ClaimState, step: int) -> dict[str, Any]:
    """The record of an owner that left its claim behind, with what the end of its log tells."""
    log = store.own_log(seen.log)
    memory = memory_complaint(log)
    message = f"job {seen.job} ended without a word" + (f"; log in {log}" if log else "")
    if memory:
        message = f"job {seen.job} ran out of host memory ({memory}); log in {log}"
    return {
        "class": "host_memory" if memory else "lost",
        "message": message,
        "job": seen.job,
        "attempt": seen.attempt,
        "step": step,
    }


def record_lost(store: Store, stage: str, seen: ClaimState, job: str) -> None:
    """Note why an earlier owner is gone; a job that SLURM itself started again is no loss."""
    step = store.newest_step(stage)
    record = lost(store, seen, step)
    if record["class"] == "host_memory" and _was_in_gang(store, stage, seen):
        record |= {"class": "gang", "again": True}
    if seen.job == job and record["class"] == "lost":
        record |= {"class": "preempted", "message": f"SLURM started job {job} again"}
    store.record_failure(stage, record)


def _was_in_gang(store: Store, stage: str, seen: ClaimState) -> bool:
    """Whether that owner trained the stage beside others."""
    attempts = read_lines(store.folder(stage) / "attempts.jsonl")
    last = attempts[-1] if attempts else {}
    mine = (last.get("job"), last.get("attempt")) == (seen.job, seen.attempt)
    return mine and bool(last.get("gang"))


def of_gang(error: BaseException, **where: Any) -> dict[str, Any]:
    """The record for every member of a gang in which something failed: each is tried alone."""
    return {**describe(error, **where), "class": "gang", "again": True}


def alone(failures: Sequence[dict[str, Any]]) -> bool:
    """Whether the stage may be what broke a gang, so that it must train alone."""
    return any(record.get("class") == "gang" for record in _since_retry(failures))


def signature(record: dict[str, Any]) -> str:
    """What two failures of different stages have in common when they are the same failure."""
    return f"{record.get('error')} at {record.get('where')}: {record.get('message')}"


def _since_retry(failures: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Newest first, back to the user's last word; a torn record says nothing."""
    for record in reversed(failures):
        if record.get("class") == UNREADABLE:
            continue
        if record.get("class") == RETRY:
            return
        yield record


def blocks(failures: Sequence[dict[str, Any]]) -> bool:
    """Whether a stage with these failures waits for the user: its last one would only repeat."""
    last = next(_since_retry(failures), None)
    if last is None or last.get("class") in FREE or last.get("again"):
        return False
    tries = TRIES.get(str(last.get("class")))
    if tries is None:
        return True
    alike = 0
    for record in _since_retry(failures):
        if (record.get("class"), record.get("step")) != (last["class"], last.get("step")):
            break
        alike += 1
    return alike >= tries


def micro_batch_size(failures: Sequence[dict[str, Any]], asked: int | None) -> int | None:
    """What `run.micro_batch_size` has become by running out of device memory."""
    sizes = [r["micro_batch_size"] for r in _since_retry(failures) if r.get("micro_batch_size")]
    return min([*sizes, *([asked] if asked else [])], default=None)


def memory_factor(failures: Sequence[dict[str, Any]]) -> int:
    """How often the profile's host memory the stage needs."""
    return 2 ** sum(record.get("class") == "host_memory" for record in _since_retry(failures))


def pause_seconds(failures: Sequence[dict[str, Any]]) -> float:
    """Back-off after transport failures: 2, 4, 8, ... up to 60 s."""
    count = sum(record.get("class") == "transport" for record in _since_retry(failures))
    return min(60.0, 2.0**count) if count else 0.0

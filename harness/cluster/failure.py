"""Failures have a class, and the class decides what happens next.

| class         | tried again?                         | because                                  |
| ------------- | ------------------------------------ | ---------------------------------------- |
| preempted     | always, not counted                  | SLURM or an admin took the machine       |
| time_limit    | yes; not after 3 without a step      | a limit is not an error; a step must fit |
| lost          | up to 5 times at one step            | node or process ended without a message  |
| start         | up to 3 times                        | a node may be broken: no GPU, no peers   |
| transport     | up to 5 times at one step, delayed   | connections between ranks break          |
| host_memory   | up to 3 times, memory doubled        | up to `cluster.slurm.max_mem_gb`         |
| out_of_memory | with half the micro-batch, down to 1 | the global batch stays the same          |
| gang          | each member alone                    | one failed, or all took too much memory  |
| config        | with `retry=failed`                  | the message says what to correct         |
| code          | with `retry=failed`                  | an unexpected exception only repeats     |

Two things are not failures of a stage: training that turns to NaN (its result is "diverged"), and
a store that cannot be written (the worker ends and says so, the next launch goes on). A stage that
fails for good keeps its checkpoints. The same failure in `BREAKER` stages before any stage is done
stops the sweep.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.store.claims import ClaimState
from harness.store.store import UNREADABLE, Store

RETRY = "retry"  # class of a record that is not a failure but the user's request to try again
BREAKER = 3
FREE = ("preempted", RETRY, UNREADABLE)  # classes that never count
TRIES = {"start": 3, "lost": 5, "transport": 5, "host_memory": 3, "time_limit": 3}
HOST_MEMORY = re.compile(  # messages of SLURM and the kernel; none of them is about a GPU's memory
    r"exceeded memory limit|oom[-_ ]?kill|out[-_]of[-_]memory|Out of memory: Killed", re.IGNORECASE
)
_CONNECTION = re.compile(
    r"NCCL|gloo|Connection (closed|reset|refused)|Socket|Broken pipe|timed? ?out", re.IGNORECASE
)
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")  # of an object, in its repr
_TAIL_BYTES = 4096


def classify(error: BaseException) -> str:
    """Return the class of an exception that ended a stage."""
    names = {cls.__name__ for cls in type(error).__mro__}
    if names & {"OutOfMemoryError", "MemoryError"} or "can't allocate memory" in str(error):
        return "out_of_memory"  # the text is that of torch's allocator on a CPU
    if isinstance(error, UserError):
        return "config"
    if names & {"DistBackendError", "DistNetworkError", "DistStoreError", "ConnectionError"}:
        return "transport"
    if type(error) is RuntimeError and _CONNECTION.search(str(error)):
        return "transport"
    return "code"


def describe(error: BaseException, **where: Any) -> dict[str, Any]:
    """Return the record for `failures/NNN.json`: class, one-line message, place, traceback."""
    trace = traceback.extract_tb(error.__traceback__)
    place = f"{trace[-1].filename.rpartition('/')[2]}:{trace[-1].lineno}" if trace else ""
    message = _ADDRESS.sub("", " ".join(_encodable(str(error)).split()))[:500]
    return {
        "class": classify(error),
        "error": type(error).__name__,
        "message": message or type(error).__name__,
        "where": place,
        "traceback": _encodable("".join(traceback.format_exception(error)))[-20_000:],
        **where,
    }


def _encodable(text: str) -> str:
    """Return text that UTF-8 can encode: bytes of file names that are not UTF-8 are escaped."""
    return text.encode(errors="backslashreplace").decode()


def host_memory_message(log: Path | None) -> str:
    """Return what SLURM or the kernel wrote about host memory at the end of a log, or ''."""
    if log is None:
        return ""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _TAIL_BYTES))
            match = HOST_MEMORY.search(file.read().decode(errors="replace"))
    except OSError:
        return ""
    return match[0] if match else ""


def record_lost(store: Store, stage: str, owner: ClaimState, job: str) -> None:
    """Record why an earlier owner left its claim behind; `job` is the one that found the claim.

    The reason may be in the owner's log. A job that SLURM itself started again was preempted.
    """
    log = store.own_log(owner.log)
    memory = host_memory_message(log)
    kind = "lost"
    message = f"job {owner.job} ended without a message" + (f"; log in {log}" if log else "")
    if memory:
        message = f"job {owner.job} ran out of host memory ({memory}); log in {log}"
        kind = "gang" if _was_in_gang(store, stage, owner) else "host_memory"
    elif owner.job == job:
        kind, message = "preempted", f"SLURM started job {job} again"
    record = {"class": kind, "message": message, "job": owner.job, "attempt": owner.attempt}
    again = {"again": True} if kind == "gang" else {}
    store.record_failure(stage, {**record, **again, "step": store.newest_step(stage)})


def _was_in_gang(store: Store, stage: str, owner: ClaimState) -> bool:
    """Return whether `owner` trained the stage in a gang with others."""
    last = store.last_attempt(stage)
    is_of_owner = (last.get("job"), last.get("attempt")) == (owner.job, owner.attempt)
    return is_of_owner and bool(last.get("gang"))


def must_train_alone(failures: Sequence[dict[str, Any]]) -> bool:
    """Return whether the stage was in a gang that failed, since it may have caused the failure."""
    return any(record.get("class") == "gang" for record in _since_retry(failures))


def signature(record: dict[str, Any]) -> str:
    """Return a text that is equal for failures of different stages with the same cause.

    The cause is the line of code that raised the error. Its message may name an image, a file or a
    number that differs from stage to stage. A process that was lost raised nothing.
    """
    return f"{record.get('error') or record.get('class')} at {record.get('where')}"


def _since_retry(failures: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield readable records, newest first, back to the user's last `retry`."""
    for record in reversed(failures):
        if record.get("class") == UNREADABLE:
            continue
        if record.get("class") == RETRY:
            return
        yield record


def blocks(failures: Sequence[dict[str, Any]]) -> bool:
    """Return whether a stage with these failures is tried again only after the user's `retry`."""
    last = next(_since_retry(failures), None)
    if last is None or last.get("class") in FREE or last.get("again"):
        return False
    tries = TRIES.get(str(last.get("class")))
    if tries is None:
        return True
    repetitions = 0
    for record in _since_retry(failures):
        if (record.get("class"), record.get("step")) != (last["class"], last.get("step")):
            break
        repetitions += 1
    return repetitions >= tries


def micro_batch_size(failures: Sequence[dict[str, Any]], requested: int | None) -> int | None:
    """Return `run.micro_batch_size` as reduced by the failures of class out_of_memory."""
    sizes = [r["micro_batch_size"] for r in _since_retry(failures) if r.get("micro_batch_size")]
    return min([*sizes, *([requested] if requested else [])], default=None)


def memory_factor(failures: Sequence[dict[str, Any]]) -> int:
    """Return the multiple of the profile's host memory that the stage needs."""
    return 2 ** sum(record.get("class") == "host_memory" for record in _since_retry(failures))


def pause_seconds(failures: Sequence[dict[str, Any]]) -> float:
    """Return the pause after transport failures: 2, 4, 8, ... up to 60 s."""
    count = sum(record.get("class") == "transport" for record in _since_retry(failures))
    return min(60.0, 2.0**count) if count else 0.0

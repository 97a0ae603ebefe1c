"""Threads that decode, and a wait that notices when one of them is dead.

Threads and not processes: what they call (FFCV's C code, Pillow, OpenCV) lets go of Python's lock,
nothing is copied between processes, and nothing is forked beside a GPU or another library's pool.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable

from harness.store.claims import STALE_SECONDS

GLANCE_SECONDS = 0.2  # how often a waiting thread looks after the others
STALL_SECONDS = 0.75 * STALE_SECONDS
"""Without any job done: storage that hangs, not storage that is slow. Nothing touches the claim and
nothing hears a signal meanwhile, so the wait ends before the stage would be another worker's."""


class Stalled(ConnectionError):
    """Data stopped coming: a thread died, storage hangs or fails. Worth a try (`failure.py`)."""


class Threads:
    """`count` daemon threads that take jobs in order. A job must not raise."""

    def __init__(self, count: int) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._ended = time.monotonic()  # when a job last did
        self._threads = [
            threading.Thread(target=self._work, name=f"decode-{i}", daemon=True)
            for i in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def __len__(self) -> int:
        return len(self._threads)

    def submit(self, job: Callable[[], None]) -> None:
        """Have a thread run `job`, after all that were submitted before."""
        self._jobs.put(job)

    def wait(self, done: threading.Event, what: str, seconds: float) -> None:
        """Until `done` is set; `what` is waited for, in words.

        Raises:
            Stalled: a thread is dead, or none has ended a job for `seconds`.
        """
        begun = time.monotonic()
        while not done.wait(GLANCE_SECONDS):
            dead = [thread.name for thread in self._threads if not thread.is_alive()]
            if dead:
                raise Stalled(f"the thread {dead[0]} that decodes images is dead, and {what} lost.")
            if time.monotonic() > max(begun, self._ended) + seconds:
                raise Stalled(f"{what} did not come within {seconds:g} s: its storage may hang.")

    def close(self) -> None:
        """End the threads once their jobs are done; one that hangs is left behind."""
        for _ in self._threads:
            self._jobs.put(None)
        deadline = time.monotonic() + 10.0
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            self._ended = time.monotonic()
            del job  # or it would keep its batch alive until the next one comes

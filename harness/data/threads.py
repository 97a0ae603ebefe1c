"""Threads that decode images, and a wait that notices when one of them has died.

Threads are better than processes here: FFCV's C code, Pillow and OpenCV release Python's global
lock, no image is copied between processes, and no process is forked next to a GPU or to the thread
pool of another library.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable

from harness.store.claims import STALE_SECONDS

POLL_SECONDS = 0.2  # how often a waiting thread checks that the others are alive
STALL_SECONDS = 0.75 * STALE_SECONDS
"""A wait fails if no job has ended for this time, because the storage then hangs and is not slow.

During the wait the stage's claim is not refreshed and no signal is handled. So the wait must end
before another worker may claim the stage.
"""


class Stalled(ConnectionError):
    """No more images arrive: a thread died, or the storage hangs or fails. The stage is retried."""


class Threads:
    """`count` daemon threads that run jobs in the order of submission. A job must not raise."""

    def __init__(self, count: int) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._last_end = time.monotonic()  # when a job ended last
        self._threads = [
            threading.Thread(target=self._work, name=f"decode-{i}", daemon=True)
            for i in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def __len__(self) -> int:
        return len(self._threads)

    def submit(self, job: Callable[[], None]) -> None:
        """Add `job` to the queue."""
        self._jobs.put(job)

    def wait(self, done: threading.Event, what: str, seconds: float) -> None:
        """Wait until `done` is set. `what` names the awaited thing in an error message.

        Raises:
            Stalled: a thread has died, or no job has ended for `seconds`.
        """
        started = time.monotonic()
        while not done.wait(POLL_SECONDS):
            dead = [thread.name for thread in self._threads if not thread.is_alive()]
            if dead:
                raise Stalled(f"the decoding thread {dead[0]} has died, so {what} will not come.")
            if time.monotonic() > max(started, self._last_end) + seconds:
                raise Stalled(f"{what} did not come within {seconds:g} s: its storage may hang.")

    def close(self) -> None:
        """End the threads after their jobs. A thread that hangs is left running."""
        for _ in self._threads:
            self._jobs.put(None)
        deadline = time.monotonic() + 10.0
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            self._last_end = time.monotonic()
            del job  # otherwise the thread would keep the batch in memory until its next job

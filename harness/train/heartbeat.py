"""The heartbeat of a training: it keeps the claims of rank 0 fresh."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from harness.store.claims import ClaimLost
from harness.train.distributed import World

BEAT_SECONDS = 10.0
LOADING_SECONDS = 1800.0


class Heartbeat:
    """Calls `beat` on rank 0 and keeps the `ClaimLost` that it raises, until all ranks know of it.

    An exception that left the training step on rank 0 alone would leave the other ranks waiting in
    their next collective operation.
    """

    def __init__(self, world: World, beat: Callable[[], None]):
        self.world, self.beat = world, beat
        self.lost: ClaimLost | None = None

    def __call__(self) -> None:
        """Renew the claim once, unless it is lost already."""
        if self.world.rank == 0 and self.lost is None:
            try:
                self.beat()
            except ClaimLost as lost:
                self.lost = lost

    @contextlib.contextmanager
    def in_background(self) -> Iterator[None]:
        """Renew the claim from a thread while the block runs.

        The block reads a data set, which takes minutes without a step. The thread ends after
        `LOADING_SECONDS`, so that a process that hangs for longer loses its claims.
        """
        ended = threading.Event()

        def keep_beating() -> None:
            deadline = time.monotonic() + LOADING_SECONDS
            while not ended.wait(BEAT_SECONDS) and time.monotonic() < deadline:
                self()

        thread = threading.Thread(target=keep_beating, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

"""Stopping: signal handlers raise a flag, the training loop looks at it between two steps.

Nothing is saved inside a handler: a collective or a file write there can deadlock or tear.
"""

from __future__ import annotations

import signal
import types
from typing import Any

from harness.store.claims import process_start

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2, signal.SIGHUP)


class StopFlag:
    """Raised by a signal, or by the end of the process that started this work."""

    def __init__(self) -> None:
        self.signal: str | None = None
        self._watched: tuple[int, str] | None = None
        self._before: dict[signal.Signals, Any] = {}

    def install(self) -> StopFlag:
        """Take the stop signals over; call from the main thread."""
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._raise)
        return self

    def __enter__(self) -> StopFlag:
        return self.install()

    def __exit__(self, *_: object) -> None:
        """Give the signals back: a notebook goes on after a launch, and wants its Ctrl-C."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def watch(self, pid: int, started: str) -> None:
        """Also stop when process `pid` with start time `started` (clock ticks) has ended."""
        self._watched = (pid, started)

    def _raise(self, number: int, _frame: types.FrameType | None) -> None:
        self.signal = signal.Signals(number).name

    def __call__(self) -> bool:
        """Whether to stop at the next step boundary."""
        if self.signal is None and self._watched is not None:
            pid, started = self._watched
            if process_start(pid) != started:
                self.signal = "end of the launcher"
        return self.signal is not None

"""A flag that stop signals raise, and that the training loop reads between two steps.

A signal handler saves nothing: a collective or a file write in a handler can deadlock, or leave a
file half written.
"""

from __future__ import annotations

import signal
import types
from typing import Any

from harness.store.claims import has_ended

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)
"""SLURM sends SIGUSR2 before a time limit; sites and users also send SIGUSR1."""


class StopFlag:
    """Raised by a signal, or by the end of the process that started this work."""

    def __init__(self) -> None:
        self.signal: str | None = None  # name of what raised it
        self._watched: tuple[int, str] | None = None
        self._handlers_before: dict[signal.Signals, Any] = {}

    def install(self) -> StopFlag:
        """Take over the stop signals; call this from the main thread.

        A signal that this process was started to ignore stays ignored: `nohup` and `&` in a script
        rely on that.
        """
        for number in SIGNALS:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                self._handlers_before[number] = signal.signal(number, self._raise)
        return self

    def __enter__(self) -> StopFlag:
        return self.install()

    def __exit__(self, *_: object) -> None:
        """Restore the former handlers: a notebook continues after a launch and needs Ctrl-C."""
        for number, handler in self._handlers_before.items():
            signal.signal(number, handler)

    def watch(self, pid: int, started: str) -> None:
        """Also stop when process `pid` with start time `started` (clock ticks) has ended."""
        self._watched = (pid, started)

    def _raise(self, number: int, _frame: types.FrameType | None) -> None:
        self.signal = signal.Signals(number).name

    def __call__(self) -> bool:
        """Return whether to stop at the next step boundary."""
        if self.signal is None and self._watched is not None:
            pid, started = self._watched
            if has_ended(pid, started):
                self.signal = "end of the launcher"
        return self.signal is not None

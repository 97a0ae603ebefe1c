"""How a job's process ends that has closed all it had: without the interpreter's own teardown."""

from __future__ import annotations

import atexit
import contextlib
import gc
import logging
import os
import sys

JOB = "submitit.core._submit"  # what a job's process runs as its main module


class Leave:
    """Ends the process after the exit functions that come later, with a code told beforehand.

    Python would take torch's modules apart object by object and look for garbage in what is left:
    a fifth of all that a short job takes. Of what libraries do when they are unloaded, nothing is.
    """

    def __init__(self) -> None:
        self.code: int | None = None  # unknown: as Python does it
        self._installed = False

    def install(self) -> Leave:
        """Be the last exit function of a job's process: call before what registers others."""
        spec = getattr(sys.modules["__main__"], "__spec__", None)
        if spec is not None and spec.name == JOB:
            atexit.register(self)
            self._installed = True
        return self

    def keep_imports(self) -> None:
        """Spare the garbage collector what is there by now, which stays: a look takes 0.1 s."""
        if self._installed:
            gc.freeze()

    def __call__(self) -> None:
        """Leave, unless the code is unknown, or an exception came since that Python must tell."""
        if self.code is None or hasattr(sys, "last_value"):
            gc.unfreeze()  # or torch's bindings would find what they call a leak
            return
        for close in (logging.shutdown, sys.stdout.flush, sys.stderr.flush):  # as Python would
            with contextlib.suppress(OSError, ValueError):
                close()
        os._exit(self.code)

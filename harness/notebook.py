"""The verbs as plain functions; `from harness import launch, status, cancel` calls these.

Words are those of the command line, as names: `launch(grid="quickstart", cluster="local")`; dotted
ones in a dictionary, `launch({"recipe.epochs": 3}, grid="quickstart")`. A mistake raises UserError.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

Dotted = Mapping[str, Any] | None


def _words(dotted: Dotted, named: Mapping[str, Any]) -> list[str]:
    """`key=value` words; values are written as YAML's flow style reads them."""

    def text(value: Any) -> str:
        if value is None:
            return "null"
        return value if isinstance(value, str) else json.dumps(value)

    return [f"{key}={text(value)}" for key, value in {**named, **(dotted or {})}.items()]


def launch(dotted: Dotted = None, **words: Any) -> int:
    """Run or resume a sweep, printing its progress; the command's exit code.

    It is 0 where all is done and nothing was damaged.

    On this machine it returns when the sweep has ended, with a SLURM profile when all is queued.
    """
    from harness.launch import main

    return main(_words(dotted, words))


def status(dotted: Dotted = None, **words: Any) -> dict[str, Any]:
    """`{"grid": name, "trials": [...], "jobs": [...]}`: every trial's axes, state, why, stages."""
    from harness.cluster.sweep_view import read_sweep
    from harness.status import as_dict

    return as_dict(read_sweep(_words(dotted, words), {}))


def cancel(dotted: Dotted = None, **words: Any) -> int:
    """Take a sweep's jobs out of SLURM's queue; the command's exit code."""
    from harness.cancel import main

    return main(_words(dotted, words))

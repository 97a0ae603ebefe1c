"""The commands as functions: `from harness import launch, status, cancel`.

Pass the arguments of the command line by name, `launch(grid="quickstart", cluster="local")`, and
dotted keys in a dictionary first, `launch({"recipe.epochs": 3}, grid="quickstart")`. A mistake
raises UserError.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from harness.cluster import read_sweep
from harness.commands import cancel as cancel_command
from harness.commands import launch as launch_command
from harness.commands import status as status_command

Overrides = Mapping[str, Any] | None


def launch(overrides: Overrides = None, **options: Any) -> int:
    """Train a grid, or resume it, and print the progress; return the command's exit code.

    The code is 0 if every stage is done and no damaged file was met. With a local cluster the
    function returns when the sweep has ended; with SLURM, as soon as all jobs are queued.
    """
    return launch_command.main(_arguments(overrides, options))


def status(overrides: Overrides = None, **options: Any) -> dict[str, Any]:
    """Return the grid, its trials (axes, state, reason and stages of each) and the queued jobs."""
    args = _arguments(overrides, options)
    return status_command.as_dict(read_sweep(args, status_command.OPTIONS))


def cancel(overrides: Overrides = None, **options: Any) -> int:
    """Take a sweep's jobs out of SLURM's queue; return the command's exit code."""
    return cancel_command.main(_arguments(overrides, options))


def _arguments(overrides: Overrides, options: Mapping[str, Any]) -> list[str]:
    """Return `key=value` arguments in YAML's flow style; a key in both is passed twice."""
    values = [*options.items(), *(overrides or {}).items()]
    return [f"{key}={_yaml(value)}" for key, value in values]


def _yaml(value: Any) -> str:
    if value is None:
        return "null"
    return value if isinstance(value, str) else json.dumps(value)

"""Run a sweep, or what is left of it: the same command.

    python -m harness.launch grid=quickstart dry_run=true
    python -m harness.launch grid=quickstart cluster.workers=2
    python -m harness.launch grid=quickstart retry=failed
"""

from __future__ import annotations

import os

from harness.cluster import failure
from harness.cluster.state import stage_states
from harness.config import Launch, load
from harness.errors import command
from harness.store.claims import process_start
from harness.store.files import make_folder, write_json
from harness.store.store import Store
from harness.sweep.plan import Plan, make_plan

KNOBS = {"dry_run": bool, "retry": str}


def main(args: list[str]) -> int:
    """The command; returns its exit code."""
    launch = load(args, KNOBS)
    plan = make_plan(launch.grid)
    store = Store(launch.store)
    return 0


if __name__ == "__main__":
    command(main)

"""What a sweep was launched with, and its jobs that train stages outside of the present grid.

The words of a launch (`recipe.epochs=2`) and an edited grid file decide which stages a sweep has.
Jobs of a launch with other words still belong to the sweep. `launches.jsonl` in the sweep's folder
has a line for each launch: its words and the stages that it had to train.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from harness.arguments import top_level
from harness.cluster import Sweep
from harness.cluster.job_registry import read_records
from harness.errors import printable
from harness.files import append_line
from harness.store.claims import look
from harness.store.identity import STAGE_ID
from harness.store.records import Record, read_lines
from harness.store.store import Store

SAME_STAGES = ("grid", "store", "run", "cluster")  # words that do not decide what is trained
MOST_LAUNCHES = 5  # printed; the others are counted


StageId = Annotated[str, Field(pattern="^[0-9a-f]{16}$")]


class _Launch(Record):
    """A line of `launches.jsonl`, as `record` writes it."""

    words: list[str]
    stages: list[StageId]


def words_of(args: Sequence[str], options: Mapping[str, Any]) -> list[str]:
    """Return the arguments of a command that decide which stages its grid has, as printable texts.

    They may hold names of files that are not UTF-8, which a record cannot.
    """
    others = (*SAME_STAGES, *options)
    return [printable(arg) for arg in args if top_level(arg.partition("=")[0]) not in others]


def record(sweep: Sweep, words: list[str], stages: Sequence[str]) -> None:
    """Append a launch to the sweep's record, unless the last line says the same."""
    last = read(sweep.store, sweep.launch.grid.name)[-1:]
    if not last or last[0]["words"] != words or not set(stages) <= set(last[0]["stages"]):
        path = _path(sweep.store, sweep.launch.grid.name)
        append_line(path, {"words": words, "stages": list(stages), "time": time.time()})


def _path(store: Store, grid: str) -> Path:
    return store.sweep_folder(grid) / "launches.jsonl"


def read(store: Store, grid: str) -> list[dict[str, Any]]:
    """Return the recorded launches of a sweep, oldest first; invalid lines are left out."""
    return read_lines(_path(store, grid), _Launch)


def jobs(sweep: Sweep) -> list[str]:
    """Return the ids of all queued jobs that launches of this sweep submitted."""
    records = read_records(sweep.store.root, sweep.launch.grid.name)
    names = {record["name"] for record in records if not record.get("of_copy")}
    return [job for job, entry in sweep.scheduler.jobs.items() if entry.name in names]


def jobs_outside(sweep: Sweep) -> dict[str, str]:
    """Return the sweep's jobs that train stages outside of its grid, with their launch's words.

    The ids of workers of a launch on one machine begin with `local-`.
    """
    words = {
        stage: " ".join(launch["words"])
        for launch in read(sweep.store, sweep.launch.grid.name)
        for stage in launch["stages"]
        if stage not in sweep.plan.stages
    }
    begun, own_jobs = sweep.store.ids(), set(jobs(sweep))
    outside: dict[str, str] = {}
    for stage in begun & words.keys():
        claim = look(sweep.store.folder(stage))
        if claim is not None and claim.live and claim.job.startswith("local-"):
            outside[claim.job] = words[stage]
    for job, stages in sweep.scheduler.stages_by_job().items():
        others = unfinished(sweep, [stage for stage in stages if stage not in sweep.plan.stages])
        if job in own_jobs and others:
            outside[job] = words.get(others[0], "")
    return outside


def unfinished(sweep: Sweep, stages: Sequence[str]) -> list[str]:
    """Return those of a job's stages, also of other grids, that have no result."""
    states, store = sweep.states, sweep.store
    return [
        stage
        for stage in stages
        if STAGE_ID.fullmatch(stage)  # a job's record may come from somebody else
        and not (states[stage].result if stage in states else store.is_done(stage))
    ]


def describe_outside(sweep: Sweep) -> list[str]:
    """Return sentences on the jobs that train stages outside of the grid, if there are any."""
    counts = Counter(
        (words, "local workers" if job.startswith("local-") else "jobs")
        for job, words in jobs_outside(sweep).items()
    )
    lines = []
    for (words, kind), count in counts.most_common(MOST_LAUNCHES):
        how = f"launched with {words}" if words else "launched before the grid was changed"
        lines.append(f"{count:,} {kind} of this sweep train stages outside this grid ({how})")
    if len(counts) > MOST_LAUNCHES:
        lines.append(f"and jobs of {len(counts) - MOST_LAUNCHES} more launches do")
    if lines:
        lines.append(
            "the same words show or cancel such jobs alone; "
            f"{sweep.launch.command('harness.cancel', 'all=true')} cancels all jobs of the sweep; "
            "local workers end with Ctrl-C in their launch"
        )
    return lines


def describe_last_words(sweep: Sweep, words: Sequence[str]) -> list[str]:
    """Return a sentence if the sweep was last launched with other words than `words`."""
    launches = read(sweep.store, sweep.launch.grid.name)
    if not launches or sorted(launches[-1]["words"]) == sorted(words):
        return []
    return [f"last launched with {' '.join(launches[-1]['words']) or 'no other words'}"]

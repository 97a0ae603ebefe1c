"""python -m harness.cancel grid=NAME [where=CONDITION | all=true]

Take a sweep's jobs out of SLURM's queue, or end those that run. Finished stages stay.

    python -m harness.cancel grid=imagenet_resnet50
    python -m harness.cancel grid=imagenet_resnet50 where="width < 1"
    python -m harness.cancel grid=imagenet_resnet50 all=true

Without `all=true`, the jobs of the grid's trials are cancelled. A launch with other words, such as
`recipe.epochs=2`, or with a grid file that was changed since, had other trials: the same words
cancel their jobs, and `all=true` cancels every job that launches of the sweep submitted.
"""

from __future__ import annotations

from dataclasses import replace

from harness.arguments import Option
from harness.cluster import Sweep, decision, read_sweep, slurm
from harness.cluster.job_registry import query_scheduler, record_cancelled
from harness.commands import launches
from harness.errors import UserError

OPTIONS = {"all": Option(bool, default=False)}


def main(args: list[str]) -> int:
    """Cancel the jobs of the selected trials, or of the whole sweep; return the exit code."""
    sweep = read_sweep(args, OPTIONS, must_answer=True)
    options = sweep.launch.options
    if options["all"] and options["where"]:
        raise UserError("all=true cancels every job of the sweep, so where= has no meaning with it")
    if options["all"]:
        if not sweep.scheduler.was_queried:  # every stage is done, but a job may still be queued
            sweep = replace(sweep, scheduler=query_scheduler(sweep.store.root, None))
        cancelled = launches.jobs(sweep)
        _cancel(sweep, cancelled)
        print(f"cancelled all {len(cancelled):,} jobs of the sweep")
    else:
        cancelled, kept = _jobs_to_cancel(sweep)
        decides = list(decision.queued(sweep)) if cancelled or options["where"] is None else []
        _cancel(sweep, [*decides, *cancelled])  # the decision first, or it may queue them again
        print(f"cancelled {len(cancelled):,} jobs of {len(sweep.trials):,} trials")
        if decides:
            print(f"and job {decides[0]}, which decides the next round; launch continues the sweep")
        if kept:
            print(f"kept {len(kept):,} jobs that also train stages outside of the selection")
        for sentence in launches.describe_outside(sweep):
            print(sentence)
    local = [s for s in sweep.stages() if sweep.states[s].job.startswith("local-")]
    if local:
        print(f"{len(local)} stages train in a local launch: end that with Ctrl-C")
    return 0


def _jobs_to_cancel(sweep: Sweep) -> tuple[list[str], list[str]]:
    """Return the jobs whose unfinished stages are all selected, and those that have others too."""
    selected = set(sweep.stages())
    cancelled: list[str] = []
    kept: list[str] = []
    for job, stages in sweep.scheduler.stages_by_job().items():
        unfinished = set(launches.unfinished(sweep, stages))
        if selected & set(stages):
            (cancelled if unfinished <= selected else kept).append(job)
    return cancelled, kept


def _cancel(sweep: Sweep, jobs: list[str]) -> None:
    """Cancel jobs, and record in the sweep that the user did."""
    slurm.cancel(jobs)
    entries = {job: sweep.scheduler.jobs[job] for job in jobs}
    record_cancelled(sweep.store.sweep_folder(sweep.launch.grid.name), entries)

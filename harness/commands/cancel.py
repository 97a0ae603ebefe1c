"""python -m harness.cancel grid=NAME [where=CONDITION]

Take a sweep's jobs out of SLURM's queue, or end those that run. Finished stages stay.

    python -m harness.cancel grid=imagenet_resnet50
    python -m harness.cancel grid=imagenet_resnet50 where="width < 1"
"""

from __future__ import annotations

from harness.cluster import Sweep, read_sweep, slurm
from harness.cluster.job_registry import record_cancelled


def main(args: list[str]) -> int:
    """Cancel the jobs of the selected trials; return the exit code."""
    sweep = read_sweep(args, {}, must_answer=True)
    cancelled, kept = _jobs_to_cancel(sweep)
    slurm.cancel(cancelled)
    record_cancelled(
        sweep.store.sweep_folder(sweep.launch.grid.name),
        {job: sweep.scheduler.jobs[job] for job in cancelled},
    )
    print(f"cancelled {len(cancelled):,} jobs of {len(sweep.trials):,} trials")
    if kept:
        print(f"kept {len(kept):,} jobs that also train stages outside of the selection")
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
        unfinished = {s for s in stages if not (s in sweep.states and sweep.states[s].result)}
        if selected & set(stages):
            (cancelled if unfinished <= selected else kept).append(job)
    return cancelled, kept

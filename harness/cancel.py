"""Take a sweep's jobs out of SLURM's queue, or end them; what they finished stays.

python -m harness.cancel grid=imagenet_resnet50
python -m harness.cancel grid=imagenet_resnet50 where="width < 1"
"""

from __future__ import annotations

from harness.cluster import slurm
from harness.cluster.select import look_at
from harness.cluster.slurm import SlurmDown
from harness.errors import UserError, command
from harness.verb import callable_module

AT_ONCE = 500  # jobs of one scancel


def main(args: list[str]) -> int:
    """The command; returns its exit code."""
    sweep = look_at(args, {})
    wanted = set(sweep.stages())
    chosen: list[str] = []
    kept: list[str] = []
    for job, stages in sweep.scheduler.parts().items():
        left = [s for s in stages if not (s in sweep.states and sweep.states[s].result)]
        if wanted & set(stages):
            (chosen if set(left) <= wanted else kept).append(job)
    for start in range(0, len(chosen), AT_ONCE):
        try:
            slurm.call("scancel", *chosen[start : start + AT_ONCE])
        except (SlurmDown, RuntimeError, FileNotFoundError) as error:
            raise UserError(f"not everything was cancelled ({error}): say it again") from error
    print(f"cancelled {len(chosen):,} jobs of {len(sweep.trials):,} trials")
    if kept:
        print(f"kept {len(kept):,} jobs that also train stages outside of the selection")
    here = [s for s in sweep.stages() if sweep.states[s].job.startswith("local-")]
    if here:
        print(f"{len(here)} stages train in a local launch: end that with Ctrl-C")
    return 0


callable_module(__name__)

if __name__ == "__main__":
    command(main, __doc__)

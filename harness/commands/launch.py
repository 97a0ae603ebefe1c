"""python -m harness.launch grid=NAME [key=value ...]

Train a grid, or resume it: the same command. `--help` prints every option.

    python -m harness.launch grid=quickstart dry_run=true
    python -m harness.launch grid=quickstart cluster.workers=2
    python -m harness.launch grid=quickstart retry=failed where="width < 1"
"""

from __future__ import annotations

from harness.arguments import Option
from harness.cluster import decision, read_sweep
from harness.cluster.selection import refuse_parts_of_sizes
from harness.commands import launches, preflight, rounds, summary
from harness.commands.evaluate import describe_planned
from harness.commands.remaining import (
    RETRY,
    after_retry,
    check_budget,
    reset_for_retry,
    stages_to_train,
)
from harness.commands.settled import describe_sizes
from harness.commands.start import queue_jobs
from harness.config import grid_files
from harness.sweep.axes import SHORT

OPTIONS = {
    "dry_run": Option(bool, default=False),
    "retry": Option(choices=RETRY),
    "budget": Option(float, low=0, high=1e9, quantity="a number of device-hours", example="12.5"),
}


USAGE = """usage: python -m harness.launch grid=NAME|path/to.yaml [key=value ...]

Train all trials of a grid, or resume it: the same command. Finished stages are never trained again.

commands, each with --help
  python -m harness.launch         train a grid, or resume it
  python -m harness.status         the state of every trial
  python -m harness.cancel         take jobs out of SLURM's queue
  python -m harness.logs           the logs of jobs
  python -m harness.doctor         what would keep a sweep from running, and what to do
  python -m harness.pilot          measure what each size of a grid costs
  python -m harness.evaluate       evaluate finished networks on corrupted images
  python -m harness.export         write trained networks as safetensors and ONNX
  python -m harness.latency        measure the latency of trained networks
  python -m harness.difficulty     how difficult augmentations are for a trained network
  python -m harness.augment        draw images as a policy changes them
  python -m harness.data.download  fetch a data set
  python -m harness.data.describe  make a folder of images a data set, by a YAML file
  python -m harness.data.write     write a data set into FFCV files, which load fast
  python -m analysis.table         the best magnitude for each size
  python -m analysis.claims        tests of the claims
  python -m analysis.classes       the accuracy of each class
  python -m analysis.figures       curves
  python -m analysis.report        one page with tables, tests and figures
  python -m analysis.rows          one line per trial, as CSV
  python -m analysis.compare       compare the rows of two sweeps

options
  dry_run=true           print what would be trained and what it would cost; write nothing
  retry=failed|all       train failed stages again (all: also those that diverged)
  where="width < 1"      train only the trials that meet a condition on axes, other keys or state
  store=PATH             the folder of finished stages (default: runs/store)
  cluster=NAME           a profile of slurm/cluster/ (default: local)
  budget=HOURS           refuse to start what would cost more device-hours
  settle=false           train the full grid, also where the grid file has the rule settle
  cluster.workers=N      processes that train at once; cluster.gpus_per_node=N: GPUs for all of them
  run.gang=N|auto        stages that one process trains side by side, on one stream of batches
  run.engine=ddp         instead of deepspeed; run.processes=N ranks; run.zero_stage=1
  run.micro_batch_size=N gradient accumulation; run.device=cpu|cuda; run.threads=N
  run.deterministic=false   a GPU's fastest algorithms, whose results do not repeat bit by bit
  run.tracker=tensorboard|wandb|mlflow   copies of the metrics, in the store under trackers/
  dataset= model= recipe=NAME   other groups; any dotted key: recipe.epochs=3 axes.seed=[0,1,2]
"""


def usage() -> str:
    """Return the help text: commands, options, the shipped grids and the short names of axes."""
    grids = grid_files()
    width = max(map(len, grids), default=0)
    listed = "\n".join(f"  {name:<{width}}  {title}" for name, title in grids.items())
    return f"{USAGE}\ngrids\n{listed}\n\naxes: {', '.join(SHORT)}, or any dotted key"


def main(args: list[str]) -> int:
    """Train what the store lacks of a grid, or print what would be trained; return the exit code.

    The code is 1 if a file is damaged, or if a selected trial has failed or is not finished.
    """
    sweep = read_sweep(args, OPTIONS, trains=True)
    refuse_parts_of_sizes(sweep.launch)
    launch, plan, dry_run = sweep.launch, sweep.plan, sweep.launch.options["dry_run"]
    retry = launch.options["retry"]
    planned = sweep if retry is None else after_retry(sweep)  # nothing is reset before all checks
    remaining = stages_to_train(planned.rounds_until_now())
    over_budget = check_budget(planned, remaining)
    possible = stages_to_train(planned.not_ruled_out())
    notes = preflight.check_layers(launch, plan, possible)
    preflight.check_continued(launch, plan, possible)
    for sentence in launches.describe_outside(sweep):
        print(f"note: {sentence}")
    if dry_run:
        notes += [*preflight.dry_run_notes(launch), *([over_budget] if over_budget else [])]
        print(summary.describe_dry_run(planned, remaining, notes))
        is_damaged = (planned.states[stage].name == "damaged" for stage in planned.stages())
        return 1 if any(is_damaged) else 0
    if sweep.scheduler.was_queried:
        from harness.cluster import enqueue  # imports submitit, which a dry run does not need

        enqueue.release_held(sweep.scheduler)
    if not remaining and not decision.is_missing(sweep):
        part = sweep.rounds_until_now()
        print(summary.describe_nothing_left(part))
        for line in [
            *describe_planned(sweep, ()),
            *rounds.describe_failures(sweep),
            *describe_sizes(sweep),
        ]:
            print(line)
        return 1 if any(part.states[stage].name == "failed" for stage in part.stages()) else 0
    if over_budget:
        print(f"nothing was queued: {over_budget}")
        return 0
    preflight.check_machine(launch)
    for sentence in [*notes, *preflight.unchecked(launch)]:
        print(f"note: {sentence}")
    if retry is not None:
        sweep = reset_for_retry(sweep)
        remaining = stages_to_train(sweep.rounds_until_now())
    for line in summary.describe_gangs(launch, plan, remaining):
        print(line)
    words = launches.words_of(args, launch.options)
    if launch.cluster.executor == "slurm":
        return queue_jobs(sweep, words, rounds.NextRound())
    return rounds.train_rounds(sweep, words)

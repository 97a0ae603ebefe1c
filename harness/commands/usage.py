"""The text that `python -m harness.launch --help` prints: every command, option and grid."""

from __future__ import annotations

from collections.abc import Mapping

from harness.sweep.axes import SHORT

USAGE = """usage: python -m harness.launch grid=NAME|path/to.yaml [key=value ...]

Train all trials of a grid, or resume it: the same command. Finished stages are never trained again.

commands, each with --help
  python -m harness.launch         train a grid, or resume it
  python -m harness.status         the state of every trial
  python -m harness.cancel         take jobs out of SLURM's queue
  python -m harness.logs           the logs of jobs
  python -m harness.doctor         what would keep a sweep from running, and what to do
  python -m harness.pilot          measure what each size of a grid costs
  python -m harness.difficulty     how difficult augmentations are for a trained network
  python -m harness.augment        draw images as a policy changes them
  python -m harness.data.download  fetch a data set
  python -m harness.data.write     write a data set into FFCV files, which load fast
  python -m analysis.table         the best magnitude for each size
  python -m analysis.claims        tests of the claims
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
  cluster.workers=N      processes that train at once; cluster.gpus_per_node=N: GPUs for all of them
  run.gang=N|auto        stages that one process trains side by side, on one stream of batches
  run.engine=ddp         instead of deepspeed; run.processes=N ranks; run.zero_stage=1
  run.micro_batch_size=N gradient accumulation; run.device=cpu|cuda; run.threads=N
  run.deterministic=false   a GPU's fastest algorithms, whose results do not repeat bit by bit
  run.tracker=tensorboard|wandb|mlflow   copies of the metrics, in the store under trackers/
  dataset= model= recipe=NAME   other groups; any dotted key: recipe.epochs=3 axes.seed=[0,1,2]
"""


def usage(grids: Mapping[str, str]) -> str:
    """Return the help text with the shipped `grids`, by name, and the short names of axes."""
    width = max(map(len, grids), default=0)
    listed = "\n".join(f"  {name:<{width}}  {title}" for name, title in grids.items())
    return f"{USAGE}\ngrids\n{listed}\n\naxes: {', '.join(SHORT)}, or any dotted key"

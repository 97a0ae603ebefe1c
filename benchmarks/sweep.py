"""Core-seconds of one grid: this harness (sharing, one process for many stages) against one process
per trial with the same training code.

python benchmarks/sweep.py [trials=24] [epochs=1]

3 widths x 4 sparsities x 4 magnitudes x 2 seeds on Fashion-MNIST. The 96 single trials are sampled:
`trials` of them, as many of each sparsity and width, and their mean is scaled to 96.
"""

import itertools
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WIDTHS, SPARSITIES = [0.5, 1, 2], [0.0, 0.5, 0.75, 0.875]
MAGNITUDES, SEEDS = [0.1, 0.3, 0.5, 0.7], [0, 1]
TRIALS = 96
GRID = """# For the benchmark of sweeps.
defaults:
  - override /dataset: fashion_mnist
  - override /recipe: quick
model: {{depth: 8}}
dataset: {{train_size: 1000, validation_size: 500, test_size: 500}}
recipe: {{epochs: {epochs}}}
compress: {{level_share: 0.5, level_epochs: {epochs}}}
run: {{engine: ddp, tracker: none}}
axes:
  width: {width}
  sparsity: {sparsity}
  magnitude: {magnitude}
  seed: {seed}
"""


ALONE = """
import sys
from pathlib import Path
from harness.config import load
from harness.store.store import Store
from harness.sweep.plan import make_plan
from harness.train.distributed import connected
from harness.train.loop import Member, train_gang
launch = load(sys.argv[1:])
plan, store = make_plan(launch.grid), Store(launch.store)
(path,) = plan.paths.values()
with connected(launch.run) as world:
    for stage in path:
        config = plan.stages[stage]
        parent = store.folder(config.parent) if config.parent else None
        member = Member(stage, config, store.prepare(stage, config), parent)
        train_gang([member], launch.run, world, lambda: False, lambda: None)
"""


def cpu_seconds(folder, name, epochs, *command, **axes):
    """Core-seconds of a command that trains this grid in a fresh store, children included."""
    grid = folder / f"{name}.yaml"
    grid.write_text(GRID.format(epochs=epochs, **axes))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, *command, f"grid={grid}", f"store={folder / name}"],
        cwd=ROOT, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(args):
    said = dict(arg.split("=") for arg in args)
    count, epochs = int(said.get("trials", "24")), int(said.get("epochs", "1"))
    cells = list(itertools.product(WIDTHS, SPARSITIES))
    others = list(itertools.product(MAGNITUDES, SEEDS))
    chosen = [(*cells[i % len(cells)], *others[(5 * i) % len(others)]) for i in range(count)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole = cpu_seconds(
            folder, "whole", epochs, "-m", "harness.launch",
            width=WIDTHS, sparsity=SPARSITIES, magnitude=MAGNITUDES, seed=SEEDS,
        )  # fmt: skip
        single = [
            cpu_seconds(
                folder, f"trial{i}", epochs, "-c", ALONE,
                width=[width], sparsity=[sparsity], magnitude=[magnitude], seed=[seed],
            )
            for i, (width, sparsity, magnitude, seed) in enumerate(chosen)
        ]  # fmt: skip
    apart = sum(single) / len(single) * TRIALS
    print(f"{epochs} epoch(s) a stage, {TRIALS} trials")
    print(f"  one process per trial  {apart:8.0f} core-seconds (from {count} of them)")
    print(f"  this harness           {whole:8.0f} core-seconds")
    print(f"  ratio                  {apart / whole:8.2f}")


if __name__ == "__main__":
    main(sys.argv[1:])

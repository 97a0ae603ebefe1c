"""Core-seconds of one grid: this harness, against one process for each trial.

python benchmarks/sweep.py [data=jpegs] [epochs=2] [trials=12] [gang=8] [seeds=2]
                           [device=cpu]

The harness shares stages, trains many of them in one process, and trains gangs. The training code
is the same on both sides. The grid has 3 widths x 4 sparsities x 4 magnitudes x `seeds`.

With data=jpegs, JPEGs of ImageNet's sizes are read through FFCV and cropped to 32 pixels, so that
decoding takes a large share of the time, as on a cluster. With data=resident, Fashion-MNIST (noise
if it is not installed) is in memory, so that reading a batch takes almost no time.

Only `trials` of the single trials run, as many of each sparsity and width, and their mean is scaled
to all trials. The exit code is 1 if the harness takes more than a quarter of the core-seconds.
"""

import itertools
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from pictures import fashion_mnist, write_bench

from harness.arguments import Option, parse_options
from harness.errors import command

OPTIONS = {
    "data": Option(list, default=["jpegs"], example="jpegs,resident"),
    "epochs": Option(int, default=2, low=1),
    "trials": Option(int, default=12, low=1),
    "gang": Option(int, default=8, low=1),
    "seeds": Option(int, default=2, low=1),
    "device": Option(default="cpu", choices=("cpu", "cuda")),
}
WIDTHS, SPARSITIES = [0.5, 1, 2], [0.0, 0.5, 0.75, 0.875]
MAGNITUDES = [0.1, 0.3, 0.5, 0.7]
LIMIT = 4.0  # times fewer core-seconds
PHOTOGRAPHS = 600
GRID = """# For the benchmark of sweeps.
defaults:
  - override /dataset: {dataset}
  - override /model: cifar_resnet
  - override /recipe: quick
model: {{depth: 8}}
dataset: {settings}
recipe: {{epochs: {epochs}}}
compress: {{level_share: 0.5, level_epochs: {epochs}}}
run: {{engine: ddp, tracker: none, device: {device}, data_root: {root}, gang: {gang}}}
cluster: {{gpus_per_node: {gpus}}}
axes:
  width: {width}
  sparsity: {sparsity}
  magnitude: {magnitude}
  seed: {seed}
"""
DATA = {
    "jpegs": (
        "bench.yaml",
        "{resolution: 32, crop_scale: [0.25, 1]}",
    ),
    "resident": ("fashion_mnist", "{train_size: 1000, validation_size: 500, test_size: 500}"),
}


SINGLE_TRIAL = """
import sys
from pathlib import Path
from harness.config import load
from harness.store.store import Store
from harness.sweep.plan import make_plan
from harness.train.distributed import connected
from harness.train import Member, train_gang
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


def cpu_seconds(folder, name, command, **settings):
    """Return the core-seconds of a command that trains a grid in a new store.

    The core-seconds of its child processes are included. `settings` fill in the text of the grid.
    """
    grid = folder / f"{name}.yaml"
    grid.write_text(GRID.format(**settings))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, *command, f"grid={grid}", f"store={folder / name}"],
        cwd=folder, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(folder, data, epochs, count, gang, seeds, device):
    """Return how many times fewer core-seconds the harness takes than one process per trial."""
    sizes = list(itertools.product(WIDTHS, SPARSITIES))
    others = list(itertools.product(MAGNITUDES, seeds))
    sampled = [(*sizes[i % len(sizes)], *others[(5 * i) % len(others)]) for i in range(count)]
    folder = folder / data
    folder.mkdir()
    dataset, settings = DATA[data]
    if data == "jpegs":
        write_bench(folder, PHOTOGRAPHS, 1, 256)
        root = str(folder)
    else:
        root = fashion_mnist(folder / "data") or "null"
    shared = {"dataset": dataset, "settings": settings, "epochs": epochs, "root": root}
    # a launch hides all GPUs from its workers except `gpus_per_node`
    shared |= {"device": device, "gpus": int(device == "cuda")}
    whole = cpu_seconds(
        folder, "whole", ["-m", "harness.launch"], gang=gang,
        width=WIDTHS, sparsity=SPARSITIES, magnitude=MAGNITUDES, seed=seeds, **shared,
    )  # fmt: skip
    trials = len(sizes) * len(others)
    print(f"{data}: {epochs} epoch(s) a stage, {trials} trials, gangs of {gang}")
    print(f"  this harness           {whole:8.0f} core-seconds", flush=True)
    single = [
        cpu_seconds(
            folder, f"trial-{i}", ["-c", SINGLE_TRIAL], gang=1,
            width=[width], sparsity=[sparsity], magnitude=[magnitude], seed=[seed], **shared,
        )
        for i, (width, sparsity, magnitude, seed) in enumerate(sampled)
    ]  # fmt: skip
    all_single = sum(single) / len(single) * trials
    print(f"  one process per trial  {all_single:8.0f} core-seconds (from {count} of them)")
    print(f"  ratio                  {all_single / whole:8.2f}", flush=True)
    return all_single / whole


def main(args):
    options = parse_options(args, OPTIONS)
    numbers = options["epochs"], options["trials"], options["gang"], list(range(options["seeds"]))
    with tempfile.TemporaryDirectory() as name:
        ratios = [measure(Path(name), d, *numbers, options["device"]) for d in options["data"]]
    print(f"{min(ratios):.2f} times fewer core-seconds (at least {LIMIT:g} required)")
    return 0 if min(ratios) >= LIMIT else 1


if __name__ == "__main__":
    command(main, __doc__, needs_arguments=False)

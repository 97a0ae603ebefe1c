"""Core-seconds of one grid: this harness (sharing, one process for many stages) against one process
per trial with the same training code.

python benchmarks/sweep.py [epochs=1,6] [trials=12] [gang=4] [seeds=2] [device=cpu]

3 widths x 4 sparsities x 4 magnitudes x 2 seeds on Fashion-MNIST (noise where it is not
installed), at each of the lengths. Single trials are sampled: `trials` of them, as many of each
sparsity and width, and their mean is scaled to all. Short stages are mostly start-up, which one
process for many stages spares; long ones show what sharing stages does. Fails below 4 times.
"""

import itertools
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from pictures import fashion_mnist

ROOT = Path(__file__).resolve().parent.parent
WIDTHS, SPARSITIES = [0.5, 1, 2], [0.0, 0.5, 0.75, 0.875]
MAGNITUDES = [0.1, 0.3, 0.5, 0.7]
LIMIT = 4.0  # times fewer core-seconds
GRID = """# For the benchmark of sweeps.
defaults:
  - override /dataset: fashion_mnist
  - override /recipe: quick
model: {{depth: 8}}
dataset: {{train_size: 1000, validation_size: 500, test_size: 500}}
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


def cpu_seconds(folder, name, command, **said):
    """Core-seconds of a command that trains this grid in a fresh store, children included."""
    grid = folder / f"{name}.yaml"
    grid.write_text(GRID.format(**said))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, *command, f"grid={grid}", f"store={folder / name}"],
        cwd=ROOT, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(folder, epochs, count, gang, seeds, device, root):
    """How many times fewer core-seconds the harness takes."""
    cells = list(itertools.product(WIDTHS, SPARSITIES))
    others = list(itertools.product(MAGNITUDES, seeds))
    chosen = [(*cells[i % len(cells)], *others[(5 * i) % len(others)]) for i in range(count)]
    same = {"epochs": epochs, "device": device, "root": root or "null"}
    same["gpus"] = int(device == "cuda")  # a local launch hides those that it is not given
    whole = cpu_seconds(
        folder, f"whole{epochs}", ["-m", "harness.launch"], gang=gang,
        width=WIDTHS, sparsity=SPARSITIES, magnitude=MAGNITUDES, seed=seeds, **same,
    )  # fmt: skip
    trials = len(cells) * len(others)
    print(f"{epochs} epoch(s) a stage, {trials} trials, gangs of {gang}")
    print(f"  this harness           {whole:8.0f} core-seconds", flush=True)
    single = [
        cpu_seconds(
            folder, f"trial{epochs}-{i}", ["-c", ALONE], gang=1,
            width=[width], sparsity=[sparsity], magnitude=[magnitude], seed=[seed], **same,
        )
        for i, (width, sparsity, magnitude, seed) in enumerate(chosen)
    ]  # fmt: skip
    apart = sum(single) / len(single) * trials
    print(f"  one process per trial  {apart:8.0f} core-seconds (from {count} of them)")
    print(f"  ratio                  {apart / whole:8.2f}", flush=True)
    return apart / whole


def main(args):
    said = dict(arg.split("=") for arg in args)
    lengths = [int(length) for length in said.get("epochs", "1,6").split(",")]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        root = fashion_mnist(folder / "data")
        ratios = [
            measure(
                folder, length, int(said.get("trials", "12")), int(said.get("gang", "4")),
                list(range(int(said.get("seeds", "2")))), said.get("device", "cpu"),
                root,
            )
            for length in lengths
        ]  # fmt: skip
    print(f"{min(ratios):.2f} times fewer core-seconds (at least {LIMIT:g} asked for)")
    return 0 if min(ratios) >= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

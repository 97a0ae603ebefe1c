"""Seconds of a launch that queues 1,000 stages on a real SLURM, of a second launch, and of status.

python benchmarks/submit.py

The script starts the one-machine SLURM of slurm/testbed in a folder of its own and stops it again.
The jobs may not start before an hour is over, so nothing trains.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STAGES = 1000
GRID = """# For the benchmark of submission.
defaults:
  - override /dataset: digits
  - override /recipe: quick
model: {{depth: 8}}
dataset: {{train_size: 256, validation_size: 128, test_size: 128}}
axes:
  magnitude: [none]
  seed: [{seeds}]
"""


def main():
    with tempfile.TemporaryDirectory(prefix="bed-") as folder:
        testbed = [ROOT / "slurm/testbed/testbed", "--dir", f"{folder}/slurm"]
        try:
            subprocess.run([*testbed, "up"], check=True)
            process = subprocess.run([*testbed, "env"], check=True, capture_output=True, text=True)
            key, _, value = process.stdout.strip().removeprefix("export ").partition("=")
            measure(Path(folder), {**os.environ, key: value})
        finally:
            subprocess.run([*testbed, "down"], check=True)


def measure(folder, env):
    """Print the seconds and the last line of output of each command."""
    grid = folder / "thousand.yaml"
    grid.write_text(GRID.format(seeds=", ".join(map(str, range(STAGES)))))
    words = [f"grid={grid}", f"store={folder}/store", "cluster=testbed"]
    later = "cluster.slurm.extra={begin: now+1hour}"
    for module, more in (
        ("harness.launch", [later]), ("harness.launch", [later]), ("harness.status", []),
    ):  # fmt: skip
        begun = time.monotonic()
        process = subprocess.run(
            [sys.executable, "-m", module, *words, *more],
            cwd=ROOT, env=env, check=True, capture_output=True, text=True,
        )  # fmt: skip
        print(f"{time.monotonic() - begun:6.2f} s  {module}: {process.stdout.splitlines()[-1]}")


if __name__ == "__main__":
    main()

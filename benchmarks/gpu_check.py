"""Everything that only a CUDA device can show, in one command: `make gpu-check`.

Equality of CPU and GPU to the bit, no synchronisation, speed and memory of augmentation, the loader
and gangs. Prints a line per part; exit code 1 where something does not hold, 2 without a device.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from harness.augment.apply import apply
from harness.augment.policy import parse_policy
from harness.augment.spaces import SPACES
from harness.augment.tail import Tail, train_batch

ROOT = Path(__file__).resolve().parent.parent
WANTED = 200_000  # images/s at 224 px, two ops, batch 512
MOST_MEMORY = 1 << 30  # bytes beside the images, batch 1024
GRID = """# Gangs on a GPU.
defaults:
  - override /dataset: {dataset}
  - override /recipe: quick
model: {{depth: 8}}
recipe: {{epochs: 3, batch_size: 128}}
axes: {{width: [0.5], magnitude: [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8], seed: [0]}}
"""


def noise(count, height, width):
    random = np.random.default_rng(0)
    return torch.from_numpy(random.integers(0, 256, (count, 3, height, width), dtype=np.uint8))


def equality():
    """Every shipped space, nearest, odd and even sizes: the same bytes as on the CPU."""
    compared = 0
    for name in SPACES:
        text = "none" if name == "none" else f"{name}(m=0.7)"
        for size in ((32, 32), (47, 61), (224, 224)):
            images = noise(96, *size)
            plan = parse_policy(text).draw(0, 0, np.arange(len(images)))
            if not torch.equal(apply(images.cuda(), plan).cpu(), apply(images, plan)):
                return False, f"{text} at {size} differs"
            compared += images.numel()
    return True, f"{compared:,} values equal"


def no_synchronisation():
    """Plan, ops, crop, flip, erasing and mixing while torch raises on any wait for the device."""
    images, labels = noise(256, 64, 64).cuda(), torch.zeros(256, dtype=torch.int64, device="cuda")
    tail = Tail(crop_padding=4, flip=True, erasing=0.3, mixup=0.2, cutmix=1.0,
                mean=(0.5,) * 3, std=(0.25,) * 3)  # fmt: skip
    policy = parse_policy("uniform(n=3, m=0.8)")

    def step(epoch):
        train_batch(
            images, labels, np.arange(256), policy=policy, tail=tail, seed=0, epoch=epoch,
            num_classes=10, dtype=torch.bfloat16, channels_last=True,
        )  # fmt: skip

    step(0)  # first use of a kernel may load it
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return True, "none"


def speed():
    """Images per second at 224 px, two ops, batch 512."""
    images, policy = noise(512, 224, 224).cuda(), parse_policy("randaug(n=2, m=0.3)")
    ids, rates = np.arange(512), []
    for number in range(7):
        torch.cuda.synchronize()
        begun = time.perf_counter()
        for epoch in range(10):
            apply(images, policy.draw(0, 10 * number + epoch, ids))
        torch.cuda.synchronize()
        rates.append(10 * 512 / (time.perf_counter() - begun))
    rate = statistics.median(rates[2:])
    return rate >= WANTED, f"{rate:,.0f} images/s ({WANTED:,} wanted)"


def memory():
    """Temporary memory at 224 px, batch 1024."""
    images, policy = noise(1024, 224, 224).cuda(), parse_policy("randaug(n=2, m=0.3)")
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    result = apply(images, policy.draw(0, 0, np.arange(1024)))
    peak = torch.cuda.max_memory_allocated() - held - result.numel()
    return peak < MOST_MEMORY, f"{peak / 1e6:,.0f} MB beside input and output"


def peers():
    """`benchmarks/augment.py` on this device."""
    return _script("augment.py", 120)


def gangs():
    """Eight small stages one after the other against side by side, images on the device."""
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        grid = Path(folder) / "gang.yaml"
        grid.write_text(GRID.format(dataset="digits"))
        for size in (1, 8):
            begun = time.monotonic()
            said = subprocess.run(
                [sys.executable, "-m", "harness.launch", f"grid={grid}", f"run.gang={size}",
                 f"store={folder}/{size}", "run.device=cuda"],
                cwd=ROOT, capture_output=True, text=True, timeout=150, check=False,
            )  # fmt: skip
            if said.returncode:
                return False, (said.stdout + said.stderr).strip().splitlines()[-1]
            seconds[size] = time.monotonic() - begun
        weights = [
            {path.parent.name: path.read_text().split('"weights_sha256"')[1][:80]
             for path in Path(folder, str(size)).glob("stages/*/*/result.json")}
            for size in seconds
        ]  # fmt: skip
    same = sum(weights[0][stage] == weights[1][stage] for stage in weights[0])
    gain = seconds[1] / seconds[8]
    return True, f"{gain:.2f} x the trials per second; {same} of {len(weights[0])} bit-identical"


def loader():
    """`benchmarks/loader.py` on this machine."""
    return _script("loader.py", 120)


def training():
    """`benchmarks/train.py` on this device."""
    return _script("train.py", 120)


def _script(name, seconds):
    said = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / name],
        cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False,
    )  # fmt: skip
    text = (said.stdout if said.returncode == 0 else said.stdout + said.stderr).rstrip()
    return said.returncode == 0, "\n    " + text.replace("\n", "\n    ")


PARTS = (equality, no_synchronisation, speed, memory, gangs, peers, loader, training)


def main():
    if not torch.cuda.is_available():
        print("gpu-check needs a CUDA device and there is none here", file=sys.stderr)
        return 2
    print(torch.cuda.get_device_name())
    failed = 0
    for part in PARTS:
        begun = time.monotonic()
        try:
            holds, text = part()
        except (RuntimeError, OSError, ValueError, subprocess.SubprocessError) as error:
            holds, text = False, f"{type(error).__name__}: {error}"
        failed += not holds
        took = time.monotonic() - begun
        print(f"{'ok ' if holds else 'BAD'} {part.__name__} ({took:.0f} s): {text}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

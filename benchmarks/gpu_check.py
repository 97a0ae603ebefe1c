"""Everything that only a CUDA device can show, in one command: `make gpu-check`.

Equality of CPU and GPU to the bit, no synchronisation, speed and memory of augmentation, loaders,
the share of a step that waits for data, gangs. Prints a line per part, and ends within eight
minutes; exit code 1 where something does not hold, 2 without a device.
"""

import contextlib
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import loader as photographs
import numpy as np
import torch

from harness.augment.apply import apply
from harness.augment.policy import parse_policy
from harness.augment.spaces import SPACES
from harness.augment.tail import Tail, train_batch
from harness.data.catalog import CATALOG, image_folder
from harness.data.write import main as write
from harness.errors import UserError
from harness.schema import RunConfig, StageConfig
from harness.train.pilot import measure

ROOT = Path(__file__).resolve().parent.parent
WANTED = 200_000  # images/s at 224 px, two ops, batch 512
PHOTOGRAPHS, COPIES = 160, 40  # distinct ones are slow to make
NETWORKS = ((18, 0.25), (18, 1.0), (50, 1.0))  # ResNets: depth, width
SECONDS = 460  # for everything
END = time.monotonic() + SECONDS
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
    return _script("augment.py", 60)


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
                cwd=ROOT, capture_output=True, text=True, timeout=_left(90), check=False,
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


def decoding_gangs():
    """The same on JPEGs, which a gang decodes and copies once."""
    return _script("gang.py", 90, "device=cuda", "resolution=64", "photographs=1", "copies=8")


def fed(device="cuda"):
    """Images per second, and the share of a step that waits for images, at 224 px by FFCV."""
    CATALOG["bench"] = image_folder("bench", 10, (PHOTOGRAPHS + 10) * COPIES, 10)
    lines = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        tree, out = Path(folder, "tree"), Path(folder, "beton")
        photographs.synthesise(tree, PHOTOGRAPHS, copies=COPIES)
        words = [f"source={tree}", f"out={out / 'bench'}", "max_resolution=500"]
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            write(["dataset=bench", *words, "validation_size=10"])
        run = RunConfig(engine="ddp", device=device, loader="ffcv", data_root=str(out))
        for depth, width in NETWORKS:
            config = StageConfig.model_validate(
                {
                    "seed": 0,
                    "dataset": {"name": "bench", "validation_size": 10},
                    "model": {"family": "resnet", "depth": depth, "width": width},
                    "augment": {"policy": "randaug(n=2, m=0.3)", "crop_padding": 0, "flip": True},
                    "recipe": {
                        "epochs": 1, "batch_size": 128, "optimizer": {"lr": 0.1},
                        "precision": "bf16_autocast",
                    },
                }
            )  # fmt: skip
            found = measure(config, run, 60 if device == "cuda" else 2, Path(folder))
            rate = 128 * ((PHOTOGRAPHS + 10) * COPIES // 128) / found.seconds_per_epoch
            lines.append(
                f"ResNet-{depth} width {width:g}: {rate:,.0f} images/s, {found.data_share:.0%} of "
                f"a step waits for data, {found.memory_bytes / 1e9:.1f} GB"
            )
    return True, "\n    " + "\n    ".join([f"{os.cpu_count()} cores decode", *lines])


def loader():
    """`benchmarks/loader.py` on this machine."""
    return _script("loader.py", 150)


def training():
    """`benchmarks/train.py` on this device."""
    return _script("train.py", 90)


def _left(seconds):
    """So many seconds, or what is left of all."""
    return max(1.0, min(seconds, END - time.monotonic()))


def _script(name, seconds, *words):
    said = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / name, *words],
        cwd=ROOT, capture_output=True, text=True, timeout=_left(seconds), check=False,
    )  # fmt: skip
    text = (said.stdout if said.returncode == 0 else said.stdout + said.stderr).rstrip()
    return said.returncode == 0, "\n    " + text.replace("\n", "\n    ")


PARTS = (
    equality, no_synchronisation, speed, memory, gangs, decoding_gangs, fed, peers, loader, training
)  # fmt: skip


def main():
    if not torch.cuda.is_available():
        print("gpu-check needs a CUDA device and there is none here", file=sys.stderr)
        return 2
    print(torch.cuda.get_device_name())
    failed = 0
    for part in PARTS:
        begun = time.monotonic()
        try:
            holds, text = part() if begun < END else (False, f"no time left of {SECONDS} s")
        except (RuntimeError, OSError, ValueError, UserError, subprocess.SubprocessError) as error:
            holds, text = False, f"{type(error).__name__}: {error}"
        failed += not holds
        took = time.monotonic() - begun
        print(f"{'ok ' if holds else 'BAD'} {part.__name__} ({took:.0f} s): {text}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

"""Images per second of the harness's loader, against plain FFCV and torchvision's ImageFolder.

python benchmarks/loader.py [threads [turns [side ...]]]

The images are synthetic photographs of ImageNet's sizes (most are 500 pixels long, 110 kB). Every
loader returns shuffled training batches of uint8 after a random resized crop, with the same number
of threads (default: one) or worker processes. The loaders take turns, so that other load on the
machine affects all of them. FFCV files have a maximum size that is usual for the resolution.
ImageFolder decodes the originals and, in the last line, files that were shrunk to the same size.

Ratios are medians over the turns. Those of images per core-second are valid on a busy machine.
Those of images per second also show time in which a loader only waits.

The exit code is 1 if a ratio per core-second is below its limit.
"""

from __future__ import annotations

import contextlib
import io
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch
from ffcv.fields.basics import IntDecoder
from ffcv.fields.rgb_image import RandomResizedCropRGBImageDecoder
from ffcv.loader import Loader, OrderOption
from ffcv.transforms import ToTensor, ToTorchImage
from pictures import bench_file, bench_set, synthesise
from PIL import Image
from torchvision import transforms
from torchvision.datasets import ImageFolder

from harness.data.datasets import load
from harness.data.loader import make_loader
from harness.data.write import main as write
from harness.run_schema import RunConfig
from harness.schema import DatasetConfig

IMAGES, BATCH, TURNS = 640, 64, 5
SCALE = (0.25, 1.0)
CASES = {64: 128, 224: 500}  # resolution: max_resolution of the files written for it
LIMITS = {"FFCV": 0.95, "ImageFolder at 64 px": 3.0, "ImageFolder, shrunk at 64 px": 3.0}
"""The least ratio of images per core-second to that of a loader, at any or one resolution."""

SECONDS = 1.0  # a turn repeats epochs for at least this time
Epoch = Callable[[int], int]
"""Function of the number of an epoch that reads the epoch and returns its number of images."""


def shrink(source: Path, target: Path, longest: int) -> None:
    """Copy the JPEGs of a tree, with sides of at most `longest` pixels."""
    for path in source.rglob("*.JPEG"):
        image = Image.open(path)
        image.thumbnail((longest, longest), Image.Resampling.BOX)
        out = target / path.relative_to(source)
        out.parent.mkdir(parents=True, exist_ok=True)
        image.save(out, quality=90)


def ours(root: Path, side: int, threads: int, loader_name: str) -> Epoch:
    values = {**bench_set(IMAGES + 10), "resolution": side, "crop_scale": SCALE}
    config = DatasetConfig.model_validate(values)
    run, dataset = RunConfig(loader_threads=threads), load(config, str(root), loader_name)
    loader = make_loader(dataset, run, BATCH, rank=0, world_size=1, device=torch.device("cpu"))
    return lambda epoch: sum(len(batch.labels) for batch in loader.epoch(0, epoch))


def plain_ffcv(path: Path, side: int, threads: int) -> Epoch:
    loader = Loader(
        str(path),
        batch_size=BATCH,
        num_workers=threads,
        order=OrderOption.RANDOM,
        os_cache=True,
        pipelines={
            "image": [
                RandomResizedCropRGBImageDecoder((side, side), SCALE),
                ToTensor(),
                ToTorchImage(convert_back_int16=False),
            ],
            "label": [IntDecoder(), ToTensor()],
            "id": None,
        },
    )
    return lambda epoch: sum(len(labels) for _, labels in loader)


def torchvision_folder(root: Path, side: int, threads: int) -> Epoch:
    crop = transforms.RandomResizedCrop(side, SCALE)
    data = ImageFolder(str(root / "train"), transforms.Compose([crop, transforms.PILToTensor()]))
    loader = torch.utils.data.DataLoader(
        data, BATCH, shuffle=True, num_workers=threads, persistent_workers=True, drop_last=True
    )
    return lambda epoch: sum(len(labels) for _, labels in loader)


def core_seconds() -> float:
    """Return the CPU time of this process and its workers."""
    times = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
    return time.process_time() + sum(used.user + used.system for used in times)


def turns(contenders: dict[str, Epoch], count: int) -> dict[str, list[tuple[float, float]]]:
    """Return images per second and per core-second of each loader in each turn.

    The first turn is left out, because loaders compile in it.
    """
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for turn in range(count + 1):
        for name, epoch in contenders.items():
            images, started, cores_before = 0, time.perf_counter(), core_seconds()
            while not images or (turn and time.perf_counter() - started < SECONDS):
                images += epoch(turn)
            if turn:
                seconds = time.perf_counter() - started
                rates[name].append((images / seconds, images / (core_seconds() - cores_before)))
    return rates


def ratio(ours: list[tuple[float, float]], theirs: list[tuple[float, float]], kind: int) -> float:
    """Return the median ratio of rates per second (`kind` 0) or per core-second (`kind` 1)."""
    return statistics.median(a[kind] / b[kind] for a, b in zip(ours, theirs, strict=True))


def main(threads: int = 1, count: int = TURNS, *sides: int) -> int:
    failed = 0
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        root = Path(folder)
        file = bench_file(root, IMAGES + 10)
        size = synthesise(root / "tree/bench", IMAGES)
        print(f"{IMAGES} JPEGs of {size:.0f} kB, {threads} thread(s) each")
        for side in sides or CASES:
            longest = CASES[side]
            written, small = root / f"b{side}", root / f"s{side}"
            arguments = [f"source={root / 'tree/bench'}", f"out={written / 'bench'}"]
            with (
                contextlib.redirect_stderr(io.StringIO()),
                contextlib.redirect_stdout(io.StringIO()),
            ):
                write([f"dataset={file}", *arguments, f"max_resolution={longest}"])
            shrink(root / "tree/bench", small / "bench", longest)
            rates = turns(
                {
                    "ours": ours(written, side, threads, "ffcv"),
                    "FFCV": plain_ffcv(written / "bench/train.beton", side, threads),
                    "ImageFolder": torchvision_folder(root / "tree/bench", side, threads),
                    "our imagefolder": ours(root / "tree", side, threads, "imagefolder"),
                    "ImageFolder, shrunk": torchvision_folder(small / "bench", side, threads),
                },
                count,
            )
            print(f"{side} px from files of at most {longest} px")
            for name, values in rates.items():
                second, core = (ratio(rates["ours"], values, kind) for kind in (0, 1))
                median = statistics.median(rate for rate, _ in values)
                print(
                    f"  {name:20}{median:9,.0f} images/s   ours x {core:.2f} per core-second, "
                    f"{second:.2f} per second"
                )
                limit = LIMITS.get(name, LIMITS.get(f"{name} at {side} px", 0.0))
                if core < limit:
                    failed = 1
                    print(f"    below {limit}")
    return failed


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))

"""Images for benchmarks: noise like photographs, special cases, JPEGs of ImageNet's sizes."""

from __future__ import annotations

import contextlib
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

# (width, height) of ImageNet's training images, with their shares; the others have any size
SIZES = {(500, 375): 0.45, (375, 500): 0.13, (500, 333): 0.12, (333, 500): 0.06}


def spectral(count: int, side: int) -> torch.Tensor:
    """Return uint8 [count, 3, side, side] with the spectrum of photographs (amplitude 1/f)."""
    random = np.random.default_rng(0)
    fy, fx = np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None]
    falling = 1.0 / np.maximum(np.hypot(fy, fx), 1 / side)
    waves = np.fft.fft2(random.normal(size=(count, 3, side, side))) * falling
    images = np.fft.ifft2(waves).real
    images = 128 + 45 * images / images.std(axis=(1, 2, 3), keepdims=True)
    return torch.from_numpy(np.clip(images, 0, 255).astype(np.uint8))


def odd(height: int, width: int) -> torch.Tensor:
    """Return uint8 [6, 3, H, W], the special cases of ops.

    Two are ramps. The others are noise, blocks of low contrast, an image of one level, and noise of
    the levels 0 and 255.
    """
    random = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    blocks = random.integers(90, 140, (3, math.ceil(height / 8), math.ceil(width / 8)))
    diagonal = (x + y) * 255 // max(1, height + width - 2)
    kinds = [
        np.stack([x * 255 // max(1, width - 1)] * 3),
        np.stack([diagonal, 255 - diagonal, (x * 7 + y * 3) % 256]),
        random.integers(0, 256, (3, height, width)),
        blocks.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width],
        np.full((3, height, width), 93),
        random.integers(0, 2, (3, height, width)) * 255,
    ]
    return torch.from_numpy(np.stack(kinds).astype(np.uint8))


def halves() -> torch.Tensor:
    """Return grey images uint8 [255, 3, 6, 7] with the means v + 1/2, which Contrast rounds up."""
    level = torch.arange(255, dtype=torch.uint8)[:, None].repeat(1, 42)
    level[:, ::2] += 1
    return level.view(-1, 1, 6, 7).repeat(1, 3, 1, 1)


def photograph(rng: np.random.Generator, times: int) -> np.ndarray:
    """Return uint8 [H, W, 3] with the size of an image of ImageNet, `times` as long on each side.

    It has detail at all scales, so that decoding takes as long as for a photograph.
    """
    import cv2

    width, height = rng.choice(list(SIZES), p=np.array(list(SIZES.values())) / sum(SIZES.values()))
    if rng.random() > sum(SIZES.values()):
        width, height = np.exp(rng.normal(np.log((420, 370)), 0.45)).astype(int).clip(60, 2000)
    height, width = times * height, times * width
    pixels = np.zeros((height, width, 3), np.float32)
    for octave in range(2, 8 + times):
        noise = rng.normal(size=(2**octave, 2**octave, 3)).astype(np.float32)
        pixels += cv2.resize(noise, (int(width), int(height)), interpolation=cv2.INTER_CUBIC) * (
            70 / 1.2 ** (octave - 2)
        )
    return np.clip(pixels + 120, 0, 255).astype(np.uint8)


def synthesise(root: Path, images: int, times: int = 1, copies: int = 1) -> float:
    """Write (`images` + 10) x `copies` training and 10 test images; return their mean kilobytes.

    They are JPEGs in the folders of a class each, 10 classes. Copies are hard links.
    """
    from PIL import Image

    rng = np.random.default_rng(0)
    total = 0
    for part, count in (("train", images + 10), ("val", 10)):
        for i in range(count):
            path = root / part / f"c{i % 10}" / f"{i:05}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(photograph(rng, times)).save(path, quality=92)
            total += path.stat().st_size
            for copy in range(1, copies if part == "train" else 1):
                path.with_name(f"{i:05}-{copy}.JPEG").hardlink_to(path)
    return total / (images + 20) / 1000


def fashion_mnist(folder: Path) -> str | None:
    """Return None if Fashion-MNIST is installed, or else a data root with noise in its files."""
    from harness.data.catalog import CATALOG, missing

    info = CATALOG["fashion_mnist"]
    if missing(info, None) is None:
        return None
    random = np.random.default_rng(0)
    data_folder = folder / str(info.folder)
    data_folder.mkdir(parents=True)
    sizes = (info.train_size, info.train_size, info.test_size, info.test_size)
    for name, count in zip(info.files, sizes, strict=True):
        shape = (count, 28, 28) if "images" in name else (count,)
        values = random.integers(0, 256 if "images" in name else 10, shape, dtype=np.uint8)
        header = bytes((0, 0, 8, len(shape))) + np.array(shape, ">u4").tobytes()
        (data_folder / name).write_bytes(header + values.tobytes())
    return str(folder)


def bench_set(train_images: int) -> dict[str, Any]:
    """Return the keys of the data set `bench`, which has 10 classes and 10 test images."""
    content = {"train_images": train_images, "test_images": 10, "classes": 10}
    colours = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    places = {"name": "bench", "images": "folder", "test": "val"}
    return {**places, "validation_size": 10, "content": {**content, **colours}}


def bench_file(folder: Path, train_images: int) -> Path:
    """Write the file of the data set `bench`, and return its path."""
    path = folder / "bench.yaml"
    path.write_text(json.dumps(bench_set(train_images)))  # JSON is YAML, too
    return path


def write_bench(folder: Path, distinct: int, copies: int, side: int) -> Path:
    """Write JPEGs like ImageNet's as `.beton` files, and return the file of their data set.

    There are `distinct` different images, each `copies` times, of at most `side` pixels a side.
    """
    from harness.data.write import main as write

    file = bench_file(folder, (distinct + 10) * copies)
    synthesise(folder / "tree", distinct, copies=copies)
    words = [f"source={folder / 'tree'}", f"out={folder / 'bench'}", f"max_resolution={side}"]
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        write([f"dataset={file}", *words])
    return file

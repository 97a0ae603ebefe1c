"""A small tree of photo-like JPEGs in many sizes, as a data set, and its files."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.data.write import main as write

CLASSES = ("cat", "dog", "newt")
TRAIN, VAL = 16, 5  # images of each class
PHOTOS = Path(__file__).with_name("photos.yaml")


def photo(rng, width, height):
    """Return an image of smooth colours with some grain, which compresses like a photograph."""
    coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.int16)
    grain = rng.integers(-12, 13, (height, width, 1), dtype=np.int16)
    return Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8))


def fill(root: Path) -> None:
    """Write images of half of ImageNet's size. A quarter is upright; some are grey, some PNG."""
    rng = np.random.default_rng(0)
    for part, count in (("train", TRAIN), ("val", VAL)):
        for name in CLASSES:
            folder = root / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                sides = (int(rng.normal(236, 30)), int(rng.normal(200, 30)))
                image = photo(rng, *(sides if i % 4 else sides[::-1]))
                if part == "train" and i == 1:
                    image = image.convert("L")
                if part == "train" and i == 2:
                    image.save(folder / f"{name}_{i:02}.png")
                else:
                    image.save(folder / f"{name}_{i:02}.JPEG", quality=90)


@pytest.fixture(scope="session")
def tree(tmp_path_factory):
    """A root with photos/train and photos/val."""
    root = tmp_path_factory.mktemp("tree")
    fill(root / "photos")
    return root


@pytest.fixture(scope="session")
def betons(tree, tmp_path_factory):
    """A root with photos/*.beton, uncompressed, so that their pixels are those of the tree."""
    root = tmp_path_factory.mktemp("betons")
    words = ["compress_probability=0", "validation_size=9", "workers=2"]
    write([f"dataset={PHOTOS}", f"source={tree / 'photos'}", f"out={root / 'photos'}", *words])
    return root


@pytest.fixture
def copy(tree, tmp_path):
    """A copy of the tree, which the test may change."""
    shutil.copytree(tree / "photos", tmp_path / "source")
    return tmp_path / "source"

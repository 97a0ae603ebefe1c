"""Write into the file of a data set what its images are.

    python -m harness.data.describe dataset=pets.yaml data_root=/data

`pets.yaml` holds at least `name: pets`. The images of a class lie in a folder of their own, in the
folders of the keys `train` and `test` below data_root/pets (default: data/pets), or anywhere with
absolute paths. Where the file does not say it, `train` is the folder train/, and `test` is test/ or
val/; without any of the two, `test_share` of the training images are the test set.

The command counts images and classes, takes the mean and the deviation of up to 2,000 training
images, and a digest of the names and sizes of all files. All of that is written under `content`,
and is compared with the files whenever they are opened. Other keys and comments stay as they are.
Run it again after images were added or removed: stages with other content are other stages.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from harness.arguments import Option, parse_options
from harness.data.catalog import CATALOG, Places, data_folders, shown
from harness.data.crops import centre
from harness.data.dataset_file import file_of, is_path, parse, read_values
from harness.data.imagefolder import FolderImages
from harness.data.tree import (
    ImageTree,
    class_names,
    classes_digest,
    files_digest,
    left_out_note,
    scan_parts,
)
from harness.dataset_schema import DatasetConfig, DatasetContent
from harness.errors import UserError, command
from harness.files import atomic_write

OPTIONS = {"dataset": Option(example="pets.yaml"), "data_root": Option(example="/data")}
SAMPLE = 2000  # training images for mean and deviation: the error of a mean is about 0.005
TEST_FOLDERS = ("test", "val")  # where the test images are sought
_CONTENT = re.compile(r"^content\s*:.*\n(?:(?:[ \t]+.*|[ \t]*)\n)*", re.MULTILINE)


def _find_places(values: dict[str, Any], config: DatasetConfig, data_root: str | None) -> Path:
    """Return the folder of the data set; add `test` to `values` where only its folder says it."""
    roots = data_folders(data_root, config.name)
    train = config.train or "train"
    folders = [root for root in roots if Places(train, None).folders(root)[0].is_dir()]
    if not folders:
        looked = "; ".join(shown(Places(train, None).folders(root)[0]) for root in roots)
        raise UserError(
            f"the training images of {config.name} are not there; looked in {looked}: name the "
            "folder that holds it with data_root=DIR, or write train: /path/of/the/folder into "
            "the file."
        )
    if config.test is None and config.test_share is None:
        present = [name for name in TEST_FOLDERS if (folders[0] / name).is_dir()]
        if len(present) > 1:
            raise UserError(
                f"{shown(folders[0])} has the folders {' and '.join(present)}: write into the file "
                "which of them has the images of the final test, such as test: test."
            )
        values.update({"test": present[0]} if present else {"test_share": Places.test_share})
    return folders[0]


def _statistics(train: ImageTree, side: int) -> tuple[list[float], list[float]]:
    """Return mean and deviation of each channel, of a fixed sample of the training images."""
    rows = np.unique(
        np.linspace(0, len(train.paths) - 1, min(SAMPLE, len(train.paths))).astype(int)
    )
    images = FolderImages(train.root, [train.paths[row] for row in rows])
    total, squares, batch = np.zeros(3), np.zeros(3), 64
    for start in range(0, len(rows), batch):
        positions = np.arange(start, min(start + batch, len(rows)))
        pixels = np.empty((len(positions), side, side, 3), dtype=np.uint8)
        images.decoder(positions, positions, centre)(slice(0, len(positions)), pixels)
        scaled = pixels.reshape(-1, 3) / 255.0
        total += scaled.sum(axis=0)
        squares += np.square(scaled).sum(axis=0)
    count = len(rows) * side * side
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - np.square(mean), 0.0))
    if mean.min() < 5e-5 or std.min() < 5e-5:
        raise UserError(
            f"the {len(rows):,} training images looked at in {shown(train.root)} have one colour "
            "in all pixels, so nothing can be learned from them: replace them."
        )
    return [round(float(v), 4) for v in mean], [round(float(v), 4) for v in std]


def describe(path: Path, data_root: str | None) -> DatasetContent:
    """Write the content of a data set into its file, and return it.

    Raises:
        UserError: the file is not one of a data set, or its images are not there or cannot be used.
    """
    values = read_values(path)
    added: dict[str, Any] = {}
    values = {key: value for key, value in values.items() if key != "content"}
    values.setdefault("images", "folder")
    if values.get("name") in CATALOG:
        raise UserError(
            f"the dataset file {shown(path)}: {values['name']} is the name of a shipped data set: "
            "choose another name."
        )
    config = parse(path, {"validation_size": 1, **values})
    folder = _find_places(added, config, data_root)
    config = parse(path, {"validation_size": 1, **values, **added})
    places = Places(config.train or "train", config.test, config.test_share or Places.test_share)
    class_names(folder, places)
    train, test = scan_parts(folder, places)
    if (note := left_out_note([train, test])) is not None:
        print(f"note: {note}")
    if len(train.classes) < 2:
        raise UserError(
            f"{shown(train.root)} has one class folder, {shown(train.classes[0])}: a data set "
            "needs images of at least two classes."
        )
    side = config.resolution or DatasetContent.model_fields["resolution"].default
    mean, std = _statistics(train, side)
    content = DatasetContent(
        train_images=len(train.labels),
        test_images=len(test.labels),
        classes=len(train.classes),
        mean=(mean[0], mean[1], mean[2]),
        std=(std[0], std[1], std[2]),
        class_names=classes_digest(train.classes),
        files=files_digest(train, test),
    )
    if "images" not in read_values(path):
        added["images"] = "folder"
    if "validation_size" not in values:
        added["validation_size"] = max(1, len(train.labels) // 10)
    parse(path, {**values, **added, "content": content.model_dump()})
    atomic_write(path, _with_content(path.read_text("utf-8-sig"), added, content).encode())
    for key, value in added.items():
        print(f"{key}: {value} (added to the file)")
    return content


def _with_content(text: str, added: dict[str, Any], content: DatasetContent) -> str:
    """Return the text of a file with further keys and with its content, which is replaced."""
    text = _CONTENT.sub("", text.rstrip("\n") + "\n").rstrip("\n") + "\n"
    lines = [f"{key}: {value}" for key, value in added.items()]
    lines.append("content:  # by harness.data.describe")
    for key, value in content.model_dump().items():
        shown_value = list(value) if isinstance(value, tuple) else value
        lines.append(
            f"  {key}: {chr(34) + value + chr(34) if isinstance(value, str) else shown_value}"
        )
    return text + "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    """Describe the data set that `arguments` name; return the exit code."""
    options = parse_options(arguments, OPTIONS)
    if options["dataset"] is None:
        raise UserError("dataset is missing: add dataset=FILE, for example dataset=pets.yaml")
    if not is_path(options["dataset"]):
        raise UserError(
            f"dataset={options['dataset']} is not the path of a file that ends in .yaml: the "
            "shipped data sets are described already."
        )
    path = file_of(options["dataset"])
    content = describe(path, options["data_root"])
    print(
        f"{shown(path)}: {content.train_images:,} training images and {content.test_images:,} test "
        f"images in {content.classes:,} classes; mean {list(content.mean)}, deviation "
        f"{list(content.std)}"
    )
    return 0


if __name__ == "__main__":
    command(main, __doc__)

"""Write a data set to FFCV's `.beton` files, one for each part, with a manifest that is checked.

    python -m harness.data.write dataset=imagenet source=/data/ILSVRC out=data/imagenet

`source` is a tree with train/<class>/* and val/<class>/*, or where the files of another data set
lie. Further words, with what they are if they are not said:

    validation_size=N         images of train for validation: what grids/dataset/NAME.yaml says
    split_seed=0              of that cut
    max_resolution=           pixels; larger images are shrunk until no side is longer
    jpeg_quality=90           of images that are encoded
    compress_probability=     share stored as JPEG, the others raw: 1 for trees, 0 for other sets
    workers=                  threads: the cores that this process may use
    skip_bad=false            leave out images that do not decode

Threads decode, shrink and encode; one writes in the order of ids, so that the same settings give
the same bytes with any number of threads. Files get their names when they are complete, the
manifest comes last: what has no manifest is not a data set. One writer at a time has a folder; what
a killed one left there goes when the next begins.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from harness.arguments import Option, parse_options
from harness.data.catalog import CATALOG, MANIFEST, DatasetInfo, check_counts, misfits
from harness.data.datasets import cut_as, read_official
from harness.data.encode import Part, Read, write_part
from harness.data.imagefolder import Tree, read_image, scan_both
from harness.data.manifest import (
    AGAIN,
    FORMAT,
    PARTS,
    Cut,
    File,
    Files,
    Manifest,
    Official,
    Settings,
    Skipped,
)
from harness.data.node import usable_cores
from harness.data.official import Integers
from harness.data.source import INSTALL_FFCV
from harness.data.splits import split_hash
from harness.data.threads import Threads
from harness.errors import UserError, command, nearest
from harness.files import CannotWrite, make_folder, write_json
from harness.imports import import_ffcv
from harness.paths import GRIDS
from harness.schema import DatasetConfig
from harness.store.claims import STALE_SECONDS, Claim, ClaimLost, try_claim

MOST_BAD = 100  # more bad images than this are no accident; nobody asked to leave them out
OPTIONS = {
    "dataset": Option(required=True, example="imagenet"),
    "source": Option(),
    "out": Option(required=True, example="data/imagenet"),
    "max_resolution": Option(int, low=1, high=65_535, example="500"),
    "jpeg_quality": Option(int, default=90, low=1, high=100, example="90"),
    "compress_probability": Option(float, low=0, high=1, example="0.5"),
    "workers": Option(int, low=1, high=1024, example="8"),
    "skip_bad": Option(bool, default=False),
    "validation_size": Option(int, low=1, example="50000"),
    "split_seed": Option(int, default=0, low=0),
}


class _Progress:
    """One line: images, share, rate, time left; every second on a terminal, else every minute."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0
        self._terminal = sys.stderr.isatty()
        self._started = self._shown = time.monotonic()

    def __call__(self) -> None:
        """One image more."""
        self.done += 1
        now = time.monotonic()
        last = self.done == self.total
        if now - self._shown < (1.0 if self._terminal else 60.0) and not last:
            return
        self._shown = now
        rate = self.done / max(now - self._started, 1e-9)
        left = int((self.total - self.done) / rate)
        line = (
            f"{self.done:,} of {self.total:,} images ({self.done / self.total:.0%}), "
            f"{rate:,.0f} a second, {left // 3600}:{left // 60 % 60:02}:{left % 60:02} left"
        )
        end = "\n" if last or not self._terminal else ""
        print(f"\r\033[K{line}" if self._terminal else line, end=end, file=sys.stderr, flush=True)


def _of_tree(trees: tuple[Tree, Tree]) -> tuple[tuple[Integers, Read, Callable[[int], str]], ...]:
    def reader(tree: Tree) -> Read:
        return lambda id: np.array(read_image(tree.root / tree.paths[id]))

    def namer(tree: Tree) -> Callable[[int], str]:
        return lambda id: str(tree.root / tree.paths[id])

    train, test = ((tree.labels, reader(tree), namer(tree)) for tree in trees)
    return train, test


def _of_arrays(
    info: DatasetInfo, source: str | None
) -> tuple[tuple[Integers, Read, Callable[[int], str]], ...]:
    official = read_official(info, source)

    def reader(images: np.ndarray) -> Read:
        return lambda id: np.repeat(images[id].transpose(1, 2, 0), 3 // images.shape[1], axis=2)

    return (
        (official.train_labels, reader(official.train_images), "training image {}".format),
        (official.test_labels, reader(official.test_images), "test image {}".format),
    )


def write(
    info: DatasetInfo,
    config: DatasetConfig,
    source: str | None,
    out: Path,
    settings: Settings,
    workers: int,
    skip_bad: bool,
) -> Manifest:
    """Write the three parts and the manifest, which is returned.

    Raises:
        UserError: a source that is not the data set, a split that it does not allow, bad images
            that should not be skipped, or a folder that is finished or being written.
        Stalled: an image that takes longer than `IMAGE_SECONDS`, or that storage does not give.
    """
    if problems := misfits(config):
        raise UserError(" ".join(problems))
    if (out / MANIFEST).exists():
        raise UserError(f"{out} holds a finished data set: remove it first, or name another out.")
    classes: Sequence[str] = [str(i) for i in range(info.num_classes)]
    if info.module is None:
        if source is None:
            raise UserError(f"{info.name} comes from a tree of image files: say source=DIR.")
        trees = scan_both(Path(source).expanduser())
        classes = trees[0].classes
        check_counts(info, len(trees[0].labels), len(trees[1].labels), len(classes), source)
        train, test = _of_tree(trees)
    else:
        train, test = _of_arrays(info, source)
    ids = dict(zip(PARTS, cut_as(config, train[0], test[0]), strict=True))
    parts = [
        Part(name, "test" if name == "test" else "train", ids[name], *official)
        for name, official in zip(PARTS, (train, train, test), strict=True)
    ]
    with _alone(out) as claim:
        written, bad = _write_parts(out, parts, settings, workers, skip_bad, claim)
        held = []
        for part in parts:
            gone = [entry.id for entry in bad if entry.part == part.official]
            held.append(np.setdiff1d(part.ids, gone, assume_unique=True))
            if not len(held[-1]):
                raise UserError(
                    f"no image of the part {part.name} is good; mend the source and {AGAIN}."
                )
        manifest = Manifest(
            format=FORMAT,
            dataset=info.name,
            official=Official(train=len(train[0]), test=len(test[0]), classes=len(classes)),
            classes=tuple(classes),
            split=Cut(
                validation_size=config.validation_size,
                split_seed=config.split_seed,
                hash=split_hash(held[0], held[1], held[2]),
            ),
            settings=settings,
            parts=Files(**written),
            skipped=tuple(bad),
        )
        write_json(out / MANIFEST, manifest.model_dump(mode="json"))
    return manifest


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[Claim]:
    """Hold the folder, without what a killed writer left in it."""
    make_folder(out)
    claim = try_claim(out, f"write-{os.getpid()}")
    if claim is None:
        raise UserError(
            f"another process writes to {out}: name another out, or wait. If it was killed, on "
            f"another machine, this holds for {STALE_SECONDS:.0f} s."
        )
    try:
        for half in out.glob(".*.beton.*.tmp"):
            half.unlink(missing_ok=True)
        yield claim
    except ClaimLost as error:
        raise UserError(f"{out} was not finished: another process writes to it now.") from error
    finally:
        claim.release()


def _write_parts(
    out: Path, parts: Sequence[Part], settings: Settings, workers: int, skip_bad: bool, claim: Claim
) -> tuple[dict[str, File], list[Skipped]]:
    """The files' lines of the manifest, by part, and the images that were left out."""
    import cv2

    from harness.data.beton import index_digest

    cv2.setNumThreads(1)  # the threads are ours
    progress = _Progress(sum(len(part.ids) for part in parts))
    bad: list[Skipped] = []

    def step() -> None:
        progress()
        claim.heartbeat()

    def skip(entry: Skipped) -> None:
        bad.append(entry)
        if len(bad) > MOST_BAD and not skip_bad:
            raise UserError(_about(bad, "these are the first"))

    threads = Threads(workers)
    written = {}
    try:
        for part in parts:
            path = out / f"{part.name}.beton"
            said = write_part(path, part, settings, threads, step, skip)
            digest = index_digest(path, said["index_end"], said["table_start"])
            written[part.name] = File.model_validate({**said, "index_sha256": digest})
    finally:
        threads.close()
    if bad and not skip_bad:
        raise UserError(_about(bad, "these are all"))
    return written, bad


def _about(bad: Sequence[Skipped], which: str) -> str:
    named = "\n".join(f"  {entry.image}: {entry.because}" for entry in bad)
    return (
        f"{len(bad)} images do not decode, so nothing is finished; replace them, or leave them out "
        f"with skip_bad=true; {which}:\n{named}"
    )


def _usual_validation_size(name: str) -> int | None:
    """What `grids/dataset/NAME.yaml` says."""
    import yaml

    path = GRIDS / "dataset" / f"{name}.yaml"
    return yaml.safe_load(path.read_text())["validation_size"] if path.is_file() else None


def _unknown(name: str, source: str | None) -> str:
    """No such data set; for a tree, the line that makes it one."""
    said = f"no data set '{name}'{nearest(name, CATALOG)}."
    if source is None or not (Path(source).expanduser() / "train").is_dir():
        return said
    train, test = scan_both(Path(source).expanduser())
    return (
        f"{said} To make {source} one, add this line to _ROWS in harness/data/catalog.py:\n"
        f'    image_folder("{name}", num_classes={len(train.classes)}, '
        f"train_size={len(train.labels):_}, test_size={len(test.labels):_}),"
    )


def main(arguments: list[str]) -> int:
    """Write the data set that `arguments` describe; return the exit code."""
    options = parse_options(arguments, OPTIONS)
    source = options["source"]
    if (info := CATALOG.get(options["dataset"])) is None:
        raise UserError(_unknown(options["dataset"], source))
    size = options["validation_size"] or _usual_validation_size(info.name)
    if size is None:
        raise UserError(
            f"grids/dataset/{info.name}.yaml does not exist, so the number of images for "
            "validation is unknown: say validation_size=N"
        )
    try:
        import cv2  # noqa: F401

        import_ffcv()
    except (ImportError, OSError) as error:
        raise UserError(
            f"writing .beton files needs FFCV, which cannot be imported ({error}): {INSTALL_FFCV}; "
            "or train from the image files with run.loader=imagefolder."
        ) from error
    compress = options["compress_probability"]
    if compress is None:  # small images are not worth a decoder
        compress = 1.0 if info.module is None else 0.0
    config = DatasetConfig(name=info.name, validation_size=size, split_seed=options["split_seed"])
    settings = Settings(
        max_resolution=options["max_resolution"],
        jpeg_quality=options["jpeg_quality"],
        compress_probability=compress,
    )
    out, workers = Path(options["out"]).expanduser(), options["workers"] or usable_cores()
    try:
        manifest = write(info, config, source, out, settings, workers, options["skip_bad"])
    except (OSError, CannotWrite) as error:  # no place, storage that hangs
        raise UserError(
            f"{out} was not finished, and does not count as a data set: {error}"
        ) from error
    counts = ", ".join(f"{getattr(manifest.parts, name).count:,} {name}" for name in PARTS)
    print(f"{options['out']}: {counts}; split {manifest.split.hash}")
    for entry in manifest.skipped:
        print(f"skipped {entry.image}: {entry.because}")
    return 0


if __name__ == "__main__":
    command(main, __doc__)

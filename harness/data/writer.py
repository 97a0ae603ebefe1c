"""Write the `.beton` files of a data set and their manifest.

Several threads read, shrink and encode images, and one thread writes them in the order of ids. So
the same settings give the same bytes with any number of threads. The files lie in a hidden folder
until all are complete. The manifest is written last, and a folder without it is not a data set.
Only one process at a time writes to a folder. It first removes the unfinished files of a writer
that was killed.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from harness.data.catalog import MANIFEST, DatasetInfo, misfits, shown
from harness.data.datasets import read_official
from harness.data.encode import Part, SourceImages, write_part
from harness.data.imagefolder import read_image
from harness.data.manifest import (
    FORMAT,
    PARTS,
    WRITE_AGAIN,
    Cut,
    File,
    Files,
    Manifest,
    Official,
    Settings,
    Skipped,
)
from harness.data.splits import cut, split_hash
from harness.data.threads import Threads
from harness.data.tree import ImageTree, check_files, left_out_note, scan_parts
from harness.errors import UserError, control
from harness.files import make_folder, user_path, write_json
from harness.schema import DatasetConfig
from harness.store.claims import STALE_SECONDS, Claim, ClaimLost, try_claim

UNFINISHED = ".unfinished-"  # the name of a folder begins so while its files are being written
MOST_BAD = 100  # a write with more bad images than this stops at once, unless it may skip them


def write_betons(
    info: DatasetInfo,
    config: DatasetConfig,
    source: str | None,
    out: Path,
    settings: Settings,
    workers: int,
    skip_bad: bool,
) -> Manifest:
    """Write the three parts and the manifest, and return the manifest.

    Raises:
        UserError: the source is not the data set, the split does not fit it, images are bad and may
            not be skipped, the folder holds a finished data set, or another process writes to it.
        Stalled: an image takes longer than `IMAGE_SECONDS`, or the storage fails to read it.
    """
    if problems := misfits(config):
        raise UserError(" ".join(problems))
    if (out / MANIFEST).exists():
        raise UserError(
            f"{shown(out)} holds a finished data set: remove it first, or name another out."
        )
    train, test, classes = _open_source(info, source)
    parts = [
        Part(name, "test" if name == "test" else "train", ids, test if name == "test" else train)
        for name, ids in zip(PARTS, cut(config, train.labels, test.labels), strict=True)
    ]
    with _locked(out) as claim:
        files, bad = _write_parts(out, parts, settings, workers, skip_bad, claim)
        manifest = Manifest(
            format=FORMAT,
            dataset=info.name,
            source_files=None if info.content is None else info.content.files,
            official=Official(train=len(train.labels), test=len(test.labels), classes=len(classes)),
            classes=tuple(classes),
            split=Cut(
                validation_size=config.validation_size,
                split_seed=config.split_seed,
                hash=split_hash(*(_written_ids(part, bad) for part in parts)),
            ),
            settings=settings,
            parts=Files(**files),
            skipped=tuple(bad),
        )
        write_json(out / MANIFEST, manifest.model_dump(mode="json"))
    return manifest


def _open_source(
    info: DatasetInfo, source: str | None
) -> tuple[SourceImages, SourceImages, Sequence[str]]:
    """Return the official training and test images, and the names of the classes."""
    if info.reader is not None:
        official = read_official(info, source)
        return (
            _from_array(official.train_images, official.train_labels, "training"),
            _from_array(official.test_images, official.test_labels, "test"),
            [str(i) for i in range(info.num_classes)],
        )
    if source is None:
        raise UserError(f"{info.name} is read from a tree of image files: add source=DIR.")
    folder = user_path(source, "source")
    train, test = scan_parts(folder, info.places)
    check_files(info, train, test)
    if (note := left_out_note([train, test])) is not None:
        print(f"note: {note}", file=sys.stderr)
    return _from_tree(train), _from_tree(test), [shown(name) for name in train.classes]


def _from_tree(tree: ImageTree) -> SourceImages:
    return SourceImages(
        tree.labels,
        read=lambda id: np.array(read_image(tree.root / tree.paths[id])),
        describe=lambda id: shown(tree.root / tree.paths[id]),
    )


def _from_array(images: np.ndarray, labels: np.ndarray, name: str) -> SourceImages:
    repeats = 3 // images.shape[1]  # 3 for grey images, which have one channel
    return SourceImages(
        labels,
        read=lambda id: np.repeat(images[id].transpose(1, 2, 0), repeats, axis=2),
        describe=lambda id: f"{name} image {id}",
    )


@contextlib.contextmanager
def _locked(out: Path) -> Iterator[Claim]:
    """Claim the folder for this process, and remove the unfinished files of a killed writer."""
    make_folder(out)
    claim = try_claim(out, f"write-{os.getpid()}")
    if claim is None:
        raise UserError(
            f"another process writes to {shown(out)}: name another out, or wait. If that process "
            f"was killed on another machine, its claim expires after {STALE_SECONDS:.0f} s."
        )
    try:
        for unfinished in out.glob(f"{UNFINISHED}*"):
            shutil.rmtree(unfinished, ignore_errors=True)
        yield claim
    except ClaimLost as error:
        raise UserError(
            f"{shown(out)} was not finished: another process writes to it now."
        ) from error
    finally:
        claim.release()


def _write_parts(
    out: Path, parts: Sequence[Part], settings: Settings, workers: int, skip_bad: bool, claim: Claim
) -> tuple[dict[str, File], list[Skipped]]:
    """Write the files. Return their manifest entries by part, and the images that were left out."""
    import cv2

    cv2.setNumThreads(1)  # `threads` decode in parallel already
    progress = _Progress(sum(len(part.ids) for part in parts))
    bad: list[Skipped] = []

    def step() -> None:
        progress.advance()
        claim.heartbeat()

    def skip(entry: Skipped) -> None:
        bad.append(entry)
        if len(bad) > MOST_BAD and not skip_bad:
            raise UserError(_bad_images(bad, "these are the first"))

    files: dict[str, File] = {}
    threads = Threads(workers)
    with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=out) as folder:
        try:
            for part in parts:
                path = Path(folder) / f"{part.name}.beton"
                files[part.name] = write_part(path, part, settings, threads, step, skip)
        finally:
            threads.close()
        if bad and not skip_bad:
            raise UserError(_bad_images(bad, "these are all"))
        for path in Path(folder).iterdir():
            path.replace(out / path.name)
    return files, bad


def _bad_images(bad: Sequence[Skipped], which: str) -> str:
    listed = "\n".join(f"  {entry.image}: {entry.because}" for entry in bad)
    return (
        f"{len(bad)} images cannot be stored, so the data set was not finished; replace them, or "
        f"leave them out with skip_bad=true; {which}:\n{listed}"
    )


def _written_ids(part: Part, bad: Sequence[Skipped]) -> np.ndarray:
    """Return the ids of a part without the images that were left out."""
    left_out = [entry.id for entry in bad if entry.part == part.official]
    ids = np.setdiff1d(part.ids, left_out, assume_unique=True)
    if not len(ids):
        raise UserError(
            f"no image of the part {part.name} can be stored; correct the source and {WRITE_AGAIN}."
        )
    return ids


class _Progress:
    """Prints the progress: every second on a terminal, else every minute."""

    def __init__(self, total: int) -> None:
        self._total, self._done = total, 0
        self._is_terminal = sys.stderr.isatty()
        self._started = self._shown = time.monotonic()

    def advance(self) -> None:
        """Count one more image."""
        self._done += 1
        now = time.monotonic()
        is_last = self._done == self._total
        if now - self._shown < (1.0 if self._is_terminal else 60.0) and not is_last:
            return
        self._shown = now
        rate = self._done / max(now - self._started, 1e-9)
        remaining = datetime.timedelta(seconds=int((self._total - self._done) / rate))
        text = (
            f"{self._done:,} of {self._total:,} images ({self._done / self._total:.0%}), "
            f"{rate:,.0f} a second, {remaining} left"
        )
        if self._is_terminal:
            control("\r\033[K", sys.stderr)  # overwrite the line
        end = "\n" if is_last or not self._is_terminal else ""
        print(text, end=end, file=sys.stderr, flush=True)

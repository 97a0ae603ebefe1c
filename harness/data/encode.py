"""Encode images and lay them out in a `.beton` file, as FFCV 1.0.2 reads it."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from harness import rng
from harness.data.imagefolder import BadImage
from harness.data.manifest import File, Settings, Skipped, index_digest
from harness.data.threads import Threads
from harness.data.types import Integers

PAGE_SIZE = 1 << 25  # bytes; no image crosses a page: FFCV's own process cache requires that
LONGEST_SIDE = 65_535  # pixels: FFCV stores the sides in 16 bits
IMAGE_SECONDS = 60.0  # time limit for reading and encoding one image


@dataclass(frozen=True)
class SourceImages:
    """An official set: its labels by id, and functions that read and name an image by its id."""

    labels: Integers
    read: Callable[[int], np.ndarray]  # uint8 [H, W, 3]
    describe: Callable[[int], str]


@dataclass(frozen=True)
class Part:
    """The content of one `.beton` file: the images with the ids `ids` of an official set."""

    name: str
    official: Literal["train", "test"]
    ids: Integers
    source: SourceImages


class EncodedImage(NamedTuple):
    """FFCV's mode, the height and width in pixels, and the bytes of an image."""

    mode: int
    height: int
    width: int
    data: bytes


def encode(image: np.ndarray, id: int, settings: Settings) -> EncodedImage:
    """Shrink and encode an image, uint8 [H, W, 3]. Raises `BadImage` if that is impossible."""
    import cv2
    from ffcv.fields.rgb_image import IMAGE_MODES, encode_jpeg, resizer

    draw = rng.uniform(0, "write.compress", 0, np.array([id]), 1)[0, 0]
    is_jpeg = draw < settings.compress_probability
    height, width = image.shape[:2]
    try:
        image = resizer(image, settings.max_resolution)
        raw = encode_jpeg(image, settings.jpeg_quality) if is_jpeg else np.ascontiguousarray(image)
    except (cv2.error, ValueError) as error:  # too thin to be shrunk, or too long for a JPEG
        raise BadImage(
            f"{width} x {height} pixels cannot be written with max_resolution="
            f"{settings.max_resolution} and {'as JPEG' if is_jpeg else 'as pixels'}"
        ) from error
    height, width = image.shape[:2]
    if max(height, width) > LONGEST_SIDE:
        raise BadImage(
            f"{width:,} x {height:,} pixels, where FFCV stores up to {LONGEST_SIDE:,} a side; set "
            "max_resolution"
        )
    if raw.nbytes > PAGE_SIZE:
        raise BadImage(f"it takes {raw.nbytes:,} bytes of {PAGE_SIZE:,}; set max_resolution")
    return EncodedImage(IMAGE_MODES["jpg" if is_jpeg else "raw"], height, width, raw.tobytes())


class _Job:
    """Reads and encodes one image in a thread."""

    def __init__(self, part: Part, id: int, settings: Settings) -> None:
        self.id = id
        self.done = threading.Event()
        self._part, self._settings = part, settings
        self._result: EncodedImage | BaseException | None = None

    def __call__(self) -> None:
        try:
            self._result = encode(self._part.source.read(self.id), self.id, self._settings)
        except BaseException as error:  # noqa: BLE001 — raised or returned by `result`
            self._result = error
        self.done.set()

    def result(self) -> EncodedImage | BadImage:
        """Return the encoded image, or why it cannot be encoded; raise any other error."""
        if isinstance(self._result, EncodedImage | BadImage):
            return self._result
        assert self._result is not None
        raise self._result


def _encoded(
    part: Part, settings: Settings, threads: Threads
) -> Iterator[tuple[int, EncodedImage | BadImage]]:
    """Return (id, encoded image or `BadImage`) in the order of ids, with several jobs under way."""
    ids = iter(part.ids.tolist())
    pending: deque[_Job] = deque()
    while True:
        while len(pending) < 8 * len(threads) and (id := next(ids, None)) is not None:
            pending.append(_Job(part, id, settings))
            threads.submit(pending[-1])
        if not pending:
            return
        job = pending.popleft()
        threads.wait(job.done, f"the image {part.source.describe(job.id)}", IMAGE_SECONDS)
        yield job.id, job.result()


def write_part(
    path: Path,
    part: Part,
    settings: Settings,
    threads: Threads,
    progress: Callable[[], None],
    skip: Callable[[Skipped], None],
) -> File:
    """Write one `.beton` file (temporary name, sync, rename) and return its manifest entry.

    The layout is FFCV 1.0.2's: header, fields, an entry per image, pages of images, and a table
    that says where each image lies. Bad images are left out and given to `skip`.
    """
    from ffcv.fields import IntField, RGBImageField
    from ffcv.types import (
        ALLOC_TABLE_TYPE,
        CURRENT_VERSION,
        FieldDescType,
        HeaderType,
        get_metadata_type,
    )

    fields = {"image": (2, RGBImageField()), "label": (1, IntField()), "id": (1, IntField())}
    descriptions = np.zeros(len(fields), dtype=FieldDescType)
    for row, (name, (type_id, field)) in zip(descriptions, fields.items(), strict=True):
        row["type_id"] = type_id
        row["name"][: len(name)] = np.frombuffer(name.encode(), np.uint8)
        row["arguments"][:] = field.to_binary()[0]
    entries = np.zeros(len(part.ids), get_metadata_type([field for _, field in fields.values()]))
    index_end = HeaderType.itemsize + descriptions.nbytes + entries.nbytes
    position = _next_page(index_end)
    table = np.zeros(len(part.ids), dtype=ALLOC_TABLE_TYPE)
    count = 0
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            for id, result in _encoded(part, settings, threads):
                progress()
                if isinstance(result, BadImage):
                    skip(_skipped(part, id, result))
                    continue
                mode, height, width, data = result
                if position // PAGE_SIZE != (position + len(data) - 1) // PAGE_SIZE:
                    position = _next_page(position)
                file.seek(position)
                file.write(data)
                entry = entries[count]
                entry["f0"] = mode, width, height, position
                entry["f1"], entry["f2"] = part.source.labels[id], id
                table[count] = count, position, len(data)
                position, count = position + len(data), count + 1
            table_start = _next_page(position)
            file.seek(table_start)
            file.write(table[:count].tobytes())
            header = np.zeros(1, dtype=HeaderType)
            header[0] = CURRENT_VERSION, len(fields), PAGE_SIZE, count, table_start
            file.seek(0)
            file.write(header.tobytes() + descriptions.tobytes() + entries[:count].tobytes())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    return File(
        count=count,
        bytes=path.stat().st_size,
        index_end=index_end,
        table_start=table_start,
        index_sha256=index_digest(path, index_end, table_start),
    )


def _next_page(position: int) -> int:
    """Return the first page boundary at or after `position`."""
    return -(-position // PAGE_SIZE) * PAGE_SIZE


def _skipped(part: Part, id: int, error: BadImage) -> Skipped:
    return Skipped(
        part=part.official,
        id=id,
        label=int(part.source.labels[id]),
        image=part.source.describe(id),
        because=str(error),
    )

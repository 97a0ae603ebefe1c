"""Encode images and write them to a `.beton` file in the layout of FFCV 1.0.2."""

from __future__ import annotations

import itertools
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

PAGE_SIZE = 1 << 25  # bytes; FFCV's own process cache requires that no image crosses a page
LONGEST_SIDE, LONGEST_JPEG_SIDE = 65_535, 65_500  # pixels: limits of FFCV's index and of libjpeg
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
    """Return an image, uint8 [H, W, 3], shrunk and encoded as `settings` require.

    Raises `BadImage` if that is impossible.
    """
    import cv2
    from ffcv.fields.rgb_image import IMAGE_MODES, encode_jpeg, resizer

    draw = rng.uniform(0, "write.compress", 0, np.array([id]), 1)[0, 0]
    is_jpeg = draw < settings.compress_probability
    size = f"{image.shape[1]:,} x {image.shape[0]:,} pixels"
    try:
        image = resizer(image, settings.max_resolution)
    except cv2.error as error:  # the shorter side would have no pixel
        raise BadImage(
            f"{size} are too thin for max_resolution={settings.max_resolution}"
        ) from error
    height, width = image.shape[:2]
    longest = LONGEST_JPEG_SIDE if is_jpeg else LONGEST_SIDE
    if max(height, width) > longest:
        kind = "a JPEG" if is_jpeg else "an image stored as pixels"
        raise BadImage(f"{size}, and {kind} has up to {longest:,} a side; set max_resolution")
    raw = encode_jpeg(image, settings.jpeg_quality) if is_jpeg else np.ascontiguousarray(image)
    if raw.nbytes > PAGE_SIZE:
        raise BadImage(
            f"it takes {raw.nbytes:,} bytes, more than {PAGE_SIZE:,}; set max_resolution"
        )
    return EncodedImage(IMAGE_MODES["jpg" if is_jpeg else "raw"], height, width, raw.tobytes())


def _encoded(
    part: Part, settings: Settings, threads: Threads
) -> Iterator[tuple[int, EncodedImage | BadImage]]:
    """Yield (id, encoded image or `BadImage`) in the order of ids; `threads` encode ahead."""
    results: dict[int, EncodedImage | BaseException] = {}

    def start(id: int) -> tuple[int, threading.Event]:
        done = threading.Event()

        def job() -> None:
            try:
                results[id] = encode(part.source.read(id), id, settings)
            except BaseException as error:  # noqa: BLE001 — raised or returned below
                results[id] = error
            done.set()

        threads.submit(job)
        return id, done

    ids = iter(part.ids.tolist())
    pending = deque(start(id) for id in itertools.islice(ids, 8 * len(threads)))
    while pending:
        id, done = pending.popleft()
        threads.wait(done, f"the image {part.source.describe(id)}", IMAGE_SECONDS)
        if (next_id := next(ids, None)) is not None:
            pending.append(start(next_id))
        result = results.pop(id)
        if not isinstance(result, EncodedImage | BadImage):
            raise result
        yield id, result


def write_part(
    path: Path,
    part: Part,
    settings: Settings,
    threads: Threads,
    progress: Callable[[], None],
    skip: Callable[[Skipped], None],
) -> File:
    """Write one `.beton` file to the disk and return its manifest entry.

    The layout is that of FFCV 1.0.2: header, fields, an entry for each image, pages of images, and
    a table with the position of each image. Bad images are left out and passed to `skip`.
    `progress` is called after each image.
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
    with path.open("xb") as file:
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

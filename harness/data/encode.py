"""Encode images and lay them out in a `.beton` file, as FFCV 1.0.2 reads it."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from harness import rng
from harness.data.imagefolder import BadImage
from harness.data.manifest import Settings, Skipped
from harness.data.official import Integers
from harness.data.threads import Threads

PAGE_SIZE = 1 << 25  # bytes; no image crosses a page, which FFCV's own process cache rests on
IMAGE_SECONDS = 60.0  # for one image to be read and encoded

Read = Callable[[int], np.ndarray]
"""An official image by its id: uint8 [H, W, 3]."""
_Entry = tuple[int, threading.Event, list[Any]]


@dataclass(frozen=True)
class Part:
    """One file: which images it gets."""

    name: str
    official: Literal["train", "test"]  # which ids are meant
    ids: Integers
    labels: Integers  # of the official set, by id
    read: Read
    place: Callable[[int], str]  # what an image is called


def encode(image: np.ndarray, id: int, settings: Settings) -> tuple[int, int, int, bytes]:
    """FFCV's mode, height, width and bytes of an image uint8 [H, W, 3]."""
    import cv2
    from ffcv.fields.rgb_image import IMAGE_MODES, encode_jpeg, resizer

    draw = rng.uniform(0, "write.compress", 0, np.array([id]), 1)[0, 0]
    jpeg = draw < settings.compress_probability
    height, width = image.shape[:2]
    try:
        image = resizer(image, settings.max_resolution)
        raw = encode_jpeg(image, settings.jpeg_quality) if jpeg else np.ascontiguousarray(image)
    except (cv2.error, ValueError) as error:  # too thin to be shrunk, too long for a JPEG
        raise BadImage(
            f"{width} x {height} pixels cannot be written with max_resolution="
            f"{settings.max_resolution} and {'as JPEG' if jpeg else 'as pixels'}"
        ) from error
    if raw.nbytes > PAGE_SIZE:
        raise BadImage(f"it takes {raw.nbytes:,} bytes of {PAGE_SIZE:,}; set max_resolution")
    return IMAGE_MODES["jpg" if jpeg else "raw"], *image.shape[:2], raw.tobytes()


def _encoded(part: Part, settings: Settings, threads: Threads) -> Iterator[tuple[int, Any]]:
    """(id, encoded image or `BadImage`), in order; a few are under way.

    What else goes wrong is raised: it is no fault of the image.
    """
    waiting: deque[_Entry] = deque()
    left = iter(part.ids.tolist())

    def job(id: int, done: threading.Event, box: list[Any]) -> None:
        try:
            box.append(encode(part.read(id), id, settings))
        except BaseException as error:  # noqa: BLE001 — raised or reported where it is waited for
            box.append(error)
        done.set()

    while True:
        while len(waiting) < 8 * len(threads) and (id := next(left, None)) is not None:
            entry: _Entry = (id, threading.Event(), [])
            waiting.append(entry)
            threads.submit(lambda entry=entry: job(*entry))  # type: ignore[misc]
        if not waiting:
            return
        id, done, box = waiting.popleft()
        threads.wait(done, f"the image {part.place(id)}", IMAGE_SECONDS)
        if isinstance(box[0], BaseException) and not isinstance(box[0], BadImage):
            raise box[0]
        yield id, box[0]


def write_part(
    path: Path,
    part: Part,
    settings: Settings,
    threads: Threads,
    progress: Callable[[], None],
    skip: Callable[[Skipped], None],
) -> dict[str, int]:
    """Write one `.beton` file (temporary name, sync, rename); what the manifest says of it.

    The layout is FFCV 1.0.2's: header, fields, an entry per image, pages of images, and the table
    of where each image lies. Bad images are left out and told to `skip`.
    """
    from ffcv.fields import IntField, RGBImageField
    from ffcv.types import (
        ALLOC_TABLE_TYPE,
        CURRENT_VERSION,
        FieldDescType,
        HeaderType,
        get_metadata_type,
    )

    kinds = {"image": (2, RGBImageField()), "label": (1, IntField()), "id": (1, IntField())}
    described = np.zeros(len(kinds), dtype=FieldDescType)
    for row, (name, (type_id, kind)) in zip(described, kinds.items(), strict=True):
        row["type_id"] = type_id
        row["name"][: len(name)] = np.frombuffer(name.encode(), np.uint8)
        row["arguments"][:] = kind.to_binary()[0]
    entries = np.zeros(len(part.ids), get_metadata_type([kind for _, kind in kinds.values()]))
    index_end = HeaderType.itemsize + described.nbytes + entries.nbytes
    at = -(-index_end // PAGE_SIZE) * PAGE_SIZE
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
                if at // PAGE_SIZE != (at + len(data) - 1) // PAGE_SIZE:
                    at = -(-at // PAGE_SIZE) * PAGE_SIZE
                file.seek(at)
                file.write(data)
                entry = entries[count]
                entry["f0"] = mode, width, height, at
                entry["f1"], entry["f2"] = part.labels[id], id
                table[count] = count, at, len(data)
                at, count = at + len(data), count + 1
            table_start = -(-at // PAGE_SIZE) * PAGE_SIZE
            file.seek(table_start)
            file.write(table[:count].tobytes())
            header = np.zeros(1, dtype=HeaderType)
            header[0] = CURRENT_VERSION, len(kinds), PAGE_SIZE, count, table_start
            file.seek(0)
            file.write(header.tobytes() + described.tobytes() + entries[:count].tobytes())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    return {
        "count": count,
        "bytes": path.stat().st_size,
        "index_end": index_end,
        "table_start": table_start,
    }


def _skipped(part: Part, id: int, error: BadImage) -> Skipped:
    return Skipped(
        part=part.official,
        id=id,
        label=int(part.labels[id]),
        image=part.place(id),
        because=str(error),
    )

"""Images in `.beton` files: FFCV's format and C decoders, with this package's crops and threads.

FFCV's own loader draws crops from generators that cannot be seeded, cannot start in the middle of
an epoch, hangs when its thread dies, and leaks the memory of an abandoned epoch. So only the parts
that make FFCV fast are used here: the file mapped into memory, libjpeg-turbo, and OpenCV's resize.
Importing FFCV takes seconds, so this module is imported only where it is needed.
"""

from __future__ import annotations

import copy
import ctypes
import threading
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import llvmlite.binding
import numpy as np
import torch

from harness.cached_jit import CachedJit
from harness.data import node
from harness.data.catalog import shown
from harness.data.types import Bytes, Crop, Decoder, Integers
from harness.errors import UserError

_torch_threads = torch.get_num_threads()
import ffcv.libffcv as library  # noqa: E402
from ffcv.fields.rgb_image import IMAGE_MODES  # noqa: E402
from ffcv.reader import Reader  # noqa: E402
from numba.core import types  # noqa: E402
from numba.core.typing.ctypes_utils import make_function_type  # noqa: E402

torch.set_num_threads(_torch_threads)  # importing FFCV sets torch to one thread

_JPEG = IMAGE_MODES["jpg"]
_thread = threading.local()  # `scratch`: memory for the largest image that the thread decoded
_in_memory: weakref.WeakValueDictionary[tuple[str, int, int], Bytes] = weakref.WeakValueDictionary()


def _by_name(function: Any) -> Any:
    """Return one of FFCV's C functions for use in code that Numba caches on disk.

    Code that calls a ctypes object contains the function's address in this process. Code that calls
    a function by its name works in every process that registers the name.
    """
    symbol = f"ffcv_{function.__name__}"
    llvmlite.binding.add_symbol(symbol, ctypes.cast(function, ctypes.c_void_p).value)
    return types.ExternalFunction(symbol, make_function_type(function).sig)


_imdecode, _resize = map(_by_name, (library.ctypes_imdecode, library.ctypes_resize))


@CachedJit
def _decode(data, starts, sizes, is_jpeg, heights, widths, boxes, scratch, out):  # type: ignore[no-untyped-def]
    """Decode, crop and resize (INTER_AREA) images into out, uint8 [n, side, side, 3].

    Return the position of the first image that does not decode, or -1 if all do.
    """
    side = out.shape[1]
    for i in range(len(starts)):
        source = data[starts[i] : starts[i] + sizes[i]]
        height, width = heights[i], widths[i]
        pixels = source.ctypes.data
        if is_jpeg[i]:
            pixels = scratch.ctypes.data
            if _imdecode(
                source.ctypes.data, sizes[i], height, width, pixels,
                height, width, 0, 0, 1, 1, False, False,
            ):  # fmt: skip
                return i
        top, left, rows, columns = boxes[i]
        _resize(
            0, pixels, height, width, top, top + rows, left, left + columns,
            out[i].ctypes.data, side, side,
        )  # fmt: skip
    return -1


class BetonImages:
    """The images of one `.beton` file, or a selection of them: a `types.EncodedImages`.

    labels, ids: int64 [N], of all images of the file, also in a selection. With `cache="process"`,
    the whole file is read into this process's memory. With `cache="page"`, the file is mapped into
    memory, and all processes of the node share the system's page cache.
    """

    loader = "ffcv"

    def __init__(self, path: Path, cache: Literal["page", "process"] = "page") -> None:
        self.path = path
        reader = Reader(str(path))
        fields = {name: reader.metadata[f"f{i}"] for i, name in enumerate(reader.field_names)}
        self.labels: Integers = fields["label"].astype(np.int64)
        self.ids: Integers = fields["id"].astype(np.int64)
        self._image: Any = fields["image"]
        table = reader.alloc_table[np.argsort(reader.alloc_table["ptr"])]
        table_rows = np.searchsorted(table["ptr"], self._image["data_ptr"])
        self._sizes: Integers = table["size"][table_rows].astype(np.int64)
        if cache == "process":
            self._data: Bytes = _read_once(path)
        else:
            self._data = np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))
        self._selected: Integers = np.arange(len(self.ids))
        pixels = self._image["height"].astype(np.int64) * self._image["width"]
        self._largest = 3 * int(pixels.max())  # bytes of the largest decoded image

    def select(self, ids: Integers) -> tuple[BetonImages, Integers]:
        """Return the images with these ids, which must be in the file and ascend, and their labels.

        The selection shares the memory of this object.
        """
        selection = copy.copy(self)
        selection._selected = np.searchsorted(self.ids, ids)
        return selection, self.labels[selection._selected]

    def decoder(self, rows: Integers, ids: Integers, crop: Crop) -> Decoder:
        """See `EncodedImages.decoder`."""
        rows = self._selected[rows]
        image = self._image[rows]
        heights, widths = image["height"].astype(np.int64), image["width"].astype(np.int64)
        boxes = crop(ids, heights, widths)
        starts, sizes = image["data_ptr"].astype(np.int64), self._sizes[rows]
        is_jpeg = image["mode"] == _JPEG

        def decode(piece: slice, out: Bytes) -> None:
            bad = _decode(
                self._data, starts[piece], sizes[piece], is_jpeg[piece], heights[piece],
                widths[piece], boxes[piece], self._scratch(), out,
            )  # fmt: skip
            if bad >= 0:
                raise UserError(
                    f"image {ids[piece][bad]} in {shown(self.path)} does not decode: the file is "
                    "damaged; write it again with `python -m harness.data.write`."
                )

        return decode

    def _scratch(self) -> Bytes:
        """Return this thread's memory for the largest image."""
        scratch: Bytes | None = getattr(_thread, "scratch", None)
        if scratch is None or len(scratch) < self._largest:
            scratch = _thread.scratch = np.empty(self._largest, dtype=np.uint8)
        return scratch


def _key(path: Path) -> tuple[str, int, int]:
    stat = path.stat()
    return str(path.resolve()), stat.st_mtime_ns, stat.st_size


def _read_once(path: Path) -> Bytes:
    """Return all bytes of a file. All data sets of this process that use the file share them."""
    data = _in_memory.get(_key(path))
    if data is None:
        data = np.fromfile(path, dtype=np.uint8)
        # A mapped file is read-only, too. So `_decode` is compiled for one type of array.
        data.setflags(write=False)
        _in_memory[_key(path)] = data
    return data


def require_memory(paths: Iterable[Path]) -> None:
    """Raise `UserError` if a process cache of these files does not fit in this node's memory.

    The other processes of the node may or may not have read their copies yet. So the bytes of all
    processes are compared with the whole memory, and the bytes of this one with the free memory.
    """
    size = sum(path.stat().st_size for path in paths if _key(path) not in _in_memory)
    total, free = node.host_memory()
    limit = node.memory_limit() or total
    total, free = min(total, limit), min(free, limit)
    processes = node.processes_here()
    if size > 0.9 * free or processes * size > 0.9 * total:
        raise UserError(
            f"run.data_cache=process would read {size / 1e9:.1f} GB of .beton files into each of "
            f"{processes} processes on this node, which may use {total / 1e9:.1f} GB of memory, "
            f"and {free / 1e9:.1f} GB are free: use run.data_cache=page."
        )

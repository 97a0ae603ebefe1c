"""Images out of FFCV's `.beton` files: its format and its C decoders, our order, crops and threads.

FFCV's own loader draws its crops from generators that no seed reaches, cannot start in the middle
of an epoch, hangs when its thread dies and leaks what an abandoned epoch held; so only the parts
that make it fast are used here: the file, mapped into memory, libjpeg-turbo, and OpenCV's resize.
Importing FFCV takes seconds; this module is imported only where it is used.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import llvmlite.binding
import numpy as np
import torch

from harness.cached_jit import Kept
from harness.data import node
from harness.data.crops import Crop
from harness.data.official import Bytes, Integers
from harness.errors import UserError

_torch_threads = torch.get_num_threads()
import ffcv.libffcv as library  # noqa: E402
from ffcv.fields.rgb_image import IMAGE_MODES  # noqa: E402
from ffcv.reader import Reader  # noqa: E402
from numba.core import types  # noqa: E402
from numba.core.typing.ctypes_utils import make_function_type  # noqa: E402

torch.set_num_threads(_torch_threads)  # the import of FFCV sets one thread for all of torch

_JPEG = IMAGE_MODES["jpg"]
_mine = threading.local()
_held: weakref.WeakValueDictionary[tuple[str, int, int], Bytes] = weakref.WeakValueDictionary()


def _by_name(function: Any) -> Any:
    """One of FFCV's C functions, called by name in compiled code, so that this can be kept.

    As it is it would be an address, of this process alone.
    """
    symbol = f"ffcv_{function.__name__}"
    llvmlite.binding.add_symbol(symbol, ctypes.cast(function, ctypes.c_void_p).value)
    return types.ExternalFunction(symbol, make_function_type(function).sig)


_imdecode, _resize = map(_by_name, (library.ctypes_imdecode, library.ctypes_resize))


@Kept
def _decode(data, starts, sizes, jpeg, heights, widths, boxes, scratch, out):  # type: ignore[no-untyped-def]
    """Decode, crop and resize (INTER_AREA) images into out [n, side, side, 3].

    Returns the first image that does not decode, or -1.
    """
    side = out.shape[1]
    for i in range(len(starts)):
        source = data[starts[i] : starts[i] + sizes[i]]
        height, width = heights[i], widths[i]
        pixels = source.ctypes.data
        if jpeg[i]:
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


class Beton:
    """The images of one `.beton` file, or `chosen` rows of it: `streamed.Coded`.

    Labels and ids: int64 [N], of all rows of the file. With `cache="process"` the whole file is
    read into this process's memory; otherwise the system's page cache is shared by all processes.
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
        at = np.searchsorted(table["ptr"], self._image["data_ptr"])
        self._sizes: Integers = table["size"][at].astype(np.int64)
        if cache == "process":
            self._data: Bytes = _in_memory(path)
        else:
            self._data = np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))
        self._chosen: Integers = np.arange(len(self.ids))
        self._largest = 3 * int(
            (self._image["height"].astype(np.int64) * self._image["width"]).max()
        )

    def choose(self, ids: Integers) -> tuple[Beton, Integers]:
        """Images and labels of those of `ids` [n] (rising) that the file holds, in this order."""
        other = object.__new__(Beton)
        other.__dict__.update(self.__dict__)
        other._chosen = np.searchsorted(self.ids, ids)
        return other, self.labels[other._chosen]

    def job(self, rows: Integers, ids: Integers, crop: Crop):  # type: ignore[no-untyped-def]
        """See `streamed.Coded.job`."""
        rows = self._chosen[rows]
        image = self._image[rows]
        heights, widths = image["height"].astype(np.int64), image["width"].astype(np.int64)
        boxes = crop.boxes(ids, heights, widths)
        starts, sizes = image["data_ptr"].astype(np.int64), self._sizes[rows]
        jpeg = image["mode"] == _JPEG

        def fill(part: slice, out: Bytes) -> None:
            bad = _decode(
                self._data, starts[part], sizes[part], jpeg[part], heights[part], widths[part],
                boxes[part], self._scratch(), out,
            )  # fmt: skip
            if bad >= 0:
                raise UserError(
                    f"image {ids[part][bad]} in {self.path} does not decode: the file is damaged; "
                    "write it again with `python -m harness.data.write`."
                )

        return fill

    def _scratch(self) -> Bytes:
        """Memory of this thread for the largest image."""
        scratch: Bytes | None = getattr(_mine, "scratch", None)
        if scratch is None or len(scratch) < self._largest:
            scratch = _mine.scratch = np.empty(self._largest, dtype=np.uint8)
        return scratch


def _key(path: Path) -> tuple[str, int, int]:
    found = path.stat()
    return str(path.resolve()), found.st_mtime_ns, found.st_size


def _in_memory(path: Path) -> Bytes:
    """All bytes of a file, once in this process however many data sets are cut from it."""
    data = _held.get(_key(path))
    if data is None:
        data = np.fromfile(path, dtype=np.uint8)
        data.setflags(write=False)  # one type, so that the loop is compiled once
        _held[_key(path)] = data
    return data


def require_memory(paths: Iterable[Path]) -> None:
    """Refuse a process cache that does not fit, into this process and into all of this node.

    The others may have read theirs already or not, so what all need is compared with the memory
    that there is, and what this one needs with the memory that is free.
    """
    size = sum(path.stat().st_size for path in paths if _key(path) not in _held)
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

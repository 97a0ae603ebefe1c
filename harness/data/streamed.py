"""The loader for images that are decoded as they are needed: FFCV's files, or image files.

A batch is cut into pieces that threads decode into memory of the loader's own; a few batches are
under way while one is used. On a GPU the thread that ends a batch sends it, on a stream of its own.
What is in a batch depends on nothing but (seed, epoch, step): not on threads, ranks or timing.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Protocol

import numpy as np
import torch

from harness.data.crops import Centre, Crop, RandomResized, Whole, side_at
from harness.data.datasets import Dataset, Split
from harness.data.loader import Batch, SplitName, fixed_order, rank_part, training_order
from harness.data.official import Bytes, Integers
from harness.data.threads import STALL_SECONDS, Stalled, Threads

AHEAD = 3  # batches under way besides the one in use
_PIECE = (8, 64)  # images: enough that starting a piece is cheap, few enough to share
_DRAWN = 1024  # images whose crops are drawn at once: for 64 it costs 5 % of decoding small ones

Fill = Callable[[slice, Bytes], None]
"""Decodes a stretch of a batch into uint8 [n, side, side, 3]."""


class Coded(Protocol):
    """The images of a split, not decoded yet. `loader` is the name that is recorded."""

    loader: str

    def job(self, rows: Integers, ids: Integers, crop: Crop) -> Fill:
        """What decodes the images `rows` of the split; it runs in several threads at once."""


class _Pending:
    """A batch under way."""

    def __init__(self, memory: torch.Tensor, shape: tuple[int, ...], split: Split, rows: Integers):
        self.memory = memory
        self.images = memory[: math.prod(shape)].view(shape)
        self.labels = torch.from_numpy(split.labels[rows])
        self.ids = split.ids[rows]
        self.done = threading.Event()
        self.error: BaseException | None = None
        self.cancelled = False
        self.sent: tuple[torch.Tensor, torch.Tensor, torch.cuda.Event] | None = None
        self._lock = threading.Lock()
        self._left = 0

    def pieces(self, fill: Fill, threads: int, end: Callable[[_Pending], None]) -> list:
        """Jobs that together decode the batch; the last to end calls `end`."""
        smallest, largest = _PIECE
        size = min(max(-(-len(self.ids) // (2 * threads)), smallest), largest)
        images = self.images.numpy()
        parts = [slice(i, min(i + size, len(images))) for i in range(0, len(images), size)]
        self._left = len(parts)

        def job(part: slice) -> None:
            try:
                if not self.cancelled and self.error is None:
                    fill(part, images[part])
            except BaseException as error:  # noqa: BLE001 — raised again where it is waited for
                self.error = error
            with self._lock:
                self._left -= 1
                last = self._left == 0
            if last:
                try:
                    if not self.cancelled and self.error is None:
                        end(self)
                except BaseException as error:  # noqa: BLE001
                    self.error = error
                self.done.set()

        return [lambda part=part: job(part) for part in parts]


class Streamed:
    """`loader.Loader` over coded images; `batch_size` is global, what it gives is this rank's.

    `epochs` is the length of the training, which progressive resizing is a share of.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        rank: int,
        world_size: int,
        device: torch.device,
        threads: int,
        epochs: int,
    ) -> None:
        self._splits: dict[str, tuple[Split, Coded]] = {
            name: (split, coded(split))
            for name, split in (
                ("train", dataset.train),
                ("validation", dataset.validation),
                ("test", dataset.test),
            )
        }
        self.name = self._splits["train"][1].loader
        self.steps_per_epoch = len(dataset.train) // batch_size
        self._dataset, self._epochs = dataset, epochs
        self._batch_size, self._rank, self._world_size = batch_size, rank, world_size
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._threads = Threads(threads)
        self._free: list[torch.Tensor] = []
        self._next_order: tuple[tuple[int, int], Integers] | None = None

    def side(self, epoch: int) -> int:
        """Pixels of a training image's side in this epoch."""
        config = self._dataset.config
        return side_at(
            epoch, self._epochs, self._dataset.resolution, config.start_resolution, config.ramp
        )

    def epoch(self, seed: int, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """See `Loader.epoch`."""
        order = self._order(seed, epoch)
        mine = rank_part(self._batch_size, self._rank, self._world_size)
        scale = self._dataset.crop_scale
        crop = Whole() if scale is None else RandomResized(seed, epoch, scale)
        batches = self._batches("train", order[start_step:, mine], crop, self.side(epoch))
        return self._with_next_order(batches, seed, epoch + 1)

    def _order(self, seed: int, epoch: int) -> Integers:
        held = self._next_order
        if held is not None and held[0] == (seed, epoch):
            return held[1]
        return training_order(seed, epoch, len(self._dataset.train), self._batch_size)

    def _with_next_order(
        self, batches: Iterator[Batch], seed: int, epoch: int
    ) -> Generator[Batch, None, None]:
        """Behind the first batches, a thread sorts the next epoch: 0.9 s for ImageNet."""

        def sort() -> None:
            order = training_order(seed, epoch, len(self._dataset.train), self._batch_size)
            self._next_order = (seed, epoch), order

        for first in batches:
            if epoch < self._epochs:
                self._threads.submit(sort)
            yield first
            break
        yield from batches

    def evaluate(self, split: SplitName, batch_size: int) -> Iterator[Batch]:
        """See `Loader.evaluate`."""
        mine = rank_part(len(self._splits[split][0]), self._rank, self._world_size)
        rows = np.arange(mine.start, mine.stop, dtype=np.int64)
        parts = (rows[i : i + batch_size] for i in range(0, len(rows), batch_size))
        return self._batches(split, parts, self._plain(), self._dataset.resolution)

    def fixed(self, count: int, batch_size: int) -> Iterator[Batch]:
        """See `Loader.fixed`."""
        order = fixed_order(len(self._dataset.train), count, batch_size)
        return self._batches("train", order, self._plain(), self._dataset.resolution)

    def close(self) -> None:
        """See `Loader.close`."""
        self._threads.close()
        self._free.clear()
        self._splits.clear()

    def _plain(self) -> Crop:
        return Whole() if self._dataset.crop_scale is None else Centre()

    def _batches(
        self, name: str, rows: Iterable[Integers], crop: Crop, side: int
    ) -> Iterator[Batch]:
        """Decoded batches in order. An abandoned iterator gives its memory back."""
        split, images = self._splits[name]
        left = _drawn(split, images, rows, crop)
        waiting: deque[_Pending] = deque()
        try:
            while True:
                while len(waiting) <= AHEAD and (batch := next(left, None)) is not None:
                    waiting.append(self._begin(split, *batch, side))
                if not waiting:
                    return
                pending = waiting[0]
                self._threads.wait(pending.done, "the next batch", STALL_SECONDS)
                if pending.error is not None:
                    raise pending.error
                yield self._arrived(pending)
                self._give_back(waiting.popleft())
        except Stalled:
            for pending in waiting:
                pending.cancelled = True
            waiting.clear()  # it has been waited for long enough
            raise
        finally:
            for pending in waiting:
                pending.cancelled = True
            # Threads skip what was cancelled, so this waits for single pieces at most. A dead
            # thread is the next batch's error: this runs where nobody could catch one.
            with contextlib.suppress(Stalled):
                for pending in waiting:
                    self._threads.wait(pending.done, "an abandoned batch", STALL_SECONDS)
                    self._give_back(pending)

    def _begin(self, split: Split, rows: Integers, fill: Fill, side: int) -> _Pending:
        shape = (len(rows), side, side, 3)
        pending = _Pending(self._memory(math.prod(shape)), shape, split, rows)
        for job in pending.pieces(fill, len(self._threads), self._send):
            self._threads.submit(job)
        return pending

    def _send(self, pending: _Pending) -> None:
        """Copy a decoded batch to the GPU, in the thread that decoded its last piece."""
        if self._stream is None:
            return
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            images = pending.images.to(self._device, non_blocking=True)
            labels = pending.labels.pin_memory().to(self._device, non_blocking=True)
            event = torch.cuda.Event()
            event.record(self._stream)
        pending.sent = images, labels, event

    def _arrived(self, pending: _Pending) -> Batch:
        """The batch as the training sees it: channels second, a view of channels-last memory."""
        images, labels = pending.images, pending.labels
        if pending.sent is not None:
            images, labels, event = pending.sent
            user = torch.cuda.current_stream(self._device)
            user.wait_event(event)
            for tensor in (images, labels):
                tensor.record_stream(user)  # or the copying stream would reuse it too early
        return Batch(images.permute(0, 3, 1, 2), labels, pending.ids)

    def _memory(self, size: int) -> torch.Tensor:
        """Bytes of a batch, used before if there are enough; fresh ones cost a page fault each."""
        for i, memory in enumerate(self._free):
            if memory.numel() >= size:
                return self._free.pop(i)
        return torch.empty(size, dtype=torch.uint8, pin_memory=self._stream is not None)

    def _give_back(self, pending: _Pending) -> None:
        if pending.sent is not None:
            pending.sent[2].synchronize()  # the copy; it has ended long ago
        self._free.append(pending.memory)
        if len(self._free) > 2 * (AHEAD + 2):  # sizes changed: keep the large ones
            self._free.sort(key=torch.Tensor.numel)
            del self._free[0]


def _drawn(
    split: Split, images: Coded, rows: Iterable[Integers], crop: Crop
) -> Iterator[tuple[Integers, Fill]]:
    """Each batch's rows, and what decodes it."""
    left = iter(rows)
    for first in left:
        batches = [first, *itertools.islice(left, max(0, _DRAWN // len(first) - 1))]
        joined = np.concatenate(batches)
        fill = images.job(joined, split.ids[joined], crop)
        start = 0
        for batch in batches:
            yield batch, _shifted(fill, start)
            start += len(batch)


def _shifted(fill: Fill, start: int) -> Fill:
    return lambda part, out: fill(slice(start + part.start, start + part.stop), out)


def coded(split: Split) -> Coded:
    """The images of a split that is not in memory."""
    if isinstance(split.images, np.ndarray):
        raise TypeError("this split is in memory: the resident loader serves it")
    return split.images

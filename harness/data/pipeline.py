"""Batches of images that threads decode while earlier batches are used.

A batch is cut into pieces. Threads decode the pieces into memory that the pipeline owns and reuses.
On a GPU, the thread that finishes a batch copies it to the device on a separate CUDA stream. The
content of a batch depends neither on the threads nor on their timing.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch

from harness.data.threads import STALL_SECONDS, Stalled, Threads
from harness.data.types import Batch, Crop, Decoder, EncodedImages, Integers, Split

AHEAD = 3  # batches that are decoded while one is used
# Images in a piece. Smaller pieces cost more overhead; larger ones leave threads without work.
SMALLEST_PIECE, LARGEST_PIECE = 8, 64
# Images whose crops are drawn together. With 64, drawing takes 5 % of the time of small images.
CROPS_AT_ONCE = 1024


class _PendingBatch:
    """A batch that is being decoded."""

    def __init__(self, memory: torch.Tensor, shape: tuple[int, ...], split: Split, rows: Integers):
        self.memory = memory
        self.images = memory[: math.prod(shape)].view(shape)
        self.labels = torch.from_numpy(split.labels[rows])
        self.ids = split.ids[rows]
        self.done = threading.Event()
        self.error: BaseException | None = None
        self.cancelled = False
        self.on_device: tuple[torch.Tensor, torch.Tensor, torch.cuda.Event] | None = None
        self._lock = threading.Lock()
        self._unfinished_pieces = 0

    def jobs(
        self, decode: Decoder, threads: int, finish: Callable[[_PendingBatch], None]
    ) -> list[Callable[[], None]]:
        """Return jobs that together decode the batch. The last one to end calls `finish`."""
        images = self.images.numpy()
        size = -(-len(images) // (2 * threads))
        size = min(max(size, SMALLEST_PIECE), LARGEST_PIECE)
        pieces = [slice(i, min(i + size, len(images))) for i in range(0, len(images), size)]
        self._unfinished_pieces = len(pieces)

        def decode_piece(piece: slice) -> None:
            self._attempt(lambda: decode(piece, images[piece]))
            with self._lock:
                self._unfinished_pieces -= 1
                is_last = self._unfinished_pieces == 0
            if is_last:
                self._attempt(lambda: finish(self))
                self.done.set()

        return [lambda piece=piece: decode_piece(piece) for piece in pieces]  # type: ignore[misc]

    def _attempt(self, step: Callable[[], None]) -> None:
        """Run `step`, and keep its error for the consumer; skip it if the batch is cancelled."""
        if self.cancelled or self.error is not None:
            return
        try:
            step()
        except BaseException as error:  # noqa: BLE001 — `Pipeline.batches` raises it again
            self.error = error


class Pipeline:
    """Decodes batches in `threads` threads, and returns them in order on `device`."""

    def __init__(self, threads: int, device: torch.device) -> None:
        self.threads = Threads(threads)
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._free_memory: list[torch.Tensor] = []

    def batches(
        self, split: Split, batches: Iterable[Integers], crop: Crop, side: int
    ) -> Iterator[Batch]:
        """Return decoded batches of `split`; each item of `batches` holds the rows of one batch.

        Images are squares with `side` pixels a side. An iterator that is abandoned gives its memory
        back.
        """
        remaining = _with_decoders(split, encoded(split), batches, crop)
        pending: deque[_PendingBatch] = deque()
        try:
            while True:
                while len(pending) <= AHEAD and (batch := next(remaining, None)) is not None:
                    pending.append(self._start(split, *batch, side))
                if not pending:
                    return
                first = pending[0]
                self.threads.wait(first.done, "the next batch", STALL_SECONDS)
                if first.error is not None:
                    raise first.error
                yield self._receive(first)
                self._reclaim(pending.popleft())
        except Stalled:
            for batch_ahead in pending:
                batch_ahead.cancelled = True
            pending.clear()  # so that `finally` does not wait for the storage a second time
            raise
        finally:
            for batch_ahead in pending:
                batch_ahead.cancelled = True
            # Threads skip cancelled pieces, so this waits only for those that are being decoded. An
            # error is suppressed, because no caller could catch it when an iterator is abandoned.
            # The next batch reports a dead thread.
            with contextlib.suppress(Stalled):
                for batch_ahead in pending:
                    self.threads.wait(batch_ahead.done, "an abandoned batch", STALL_SECONDS)
                    self._reclaim(batch_ahead)

    def close(self) -> None:
        """End the threads and free the memory."""
        self.threads.close()
        self._free_memory.clear()

    def _start(self, split: Split, rows: Integers, decode: Decoder, side: int) -> _PendingBatch:
        shape = (len(rows), side, side, 3)
        batch = _PendingBatch(self._take_memory(math.prod(shape)), shape, split, rows)
        for job in batch.jobs(decode, len(self.threads), self._send):
            self.threads.submit(job)
        return batch

    def _send(self, batch: _PendingBatch) -> None:
        """Copy a decoded batch to the GPU. Runs in the thread that decoded the last piece."""
        if self._stream is None:
            return
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            images = batch.images.to(self._device, non_blocking=True)
            labels = batch.labels.pin_memory().to(self._device, non_blocking=True)
            event = torch.cuda.Event()
            event.record(self._stream)
        batch.on_device = images, labels, event

    def _receive(self, batch: _PendingBatch) -> Batch:
        """Return the batch with the channels second, as a view of channels-last memory."""
        images, labels = batch.images, batch.labels
        if batch.on_device is not None:
            images, labels, event = batch.on_device
            consumer = torch.cuda.current_stream(self._device)
            consumer.wait_event(event)
            for tensor in (images, labels):
                # Otherwise the copying stream could reuse the memory too early.
                tensor.record_stream(consumer)
        return Batch(images.permute(0, 3, 1, 2), labels, batch.ids)

    def _take_memory(self, size: int) -> torch.Tensor:
        """Return `size` bytes or more. It reuses memory, because new pages cause page faults."""
        for i, memory in enumerate(self._free_memory):
            if memory.numel() >= size:
                return self._free_memory.pop(i)
        return torch.empty(size, dtype=torch.uint8, pin_memory=self._stream is not None)

    def _reclaim(self, batch: _PendingBatch) -> None:
        """Keep the memory of a used batch for a later one."""
        if batch.on_device is not None:
            batch.on_device[2].synchronize()  # until the copy from this memory has ended
        self._free_memory.append(batch.memory)
        # There is more memory than this only if the size of batches has changed. Drop the smallest.
        if len(self._free_memory) > 2 * (AHEAD + 2):
            self._free_memory.sort(key=torch.Tensor.numel)
            del self._free_memory[0]


def _with_decoders(
    split: Split, images: EncodedImages, batches: Iterable[Integers], crop: Crop
) -> Iterator[tuple[Integers, Decoder]]:
    """Yield the rows of each batch and its decoder. Crops are drawn for several batches at once."""
    remaining = iter(batches)
    for first in remaining:
        group = [first, *itertools.islice(remaining, max(0, CROPS_AT_ONCE // len(first) - 1))]
        rows = np.concatenate(group)
        decode = images.decoder(rows, split.ids[rows], crop)
        start = 0
        for batch in group:
            yield batch, _from_row(decode, start)
            start += len(batch)


def _from_row(decode: Decoder, start: int) -> Decoder:
    """Return a decoder whose row 0 is row `start` of `decode`."""
    return lambda piece, out: decode(slice(start + piece.start, start + piece.stop), out)


def encoded(split: Split) -> EncodedImages:
    """Return the images of a split whose images lie in files."""
    if isinstance(split.images, np.ndarray):
        raise TypeError("the images of this split are in memory: use the resident loader")
    return split.images

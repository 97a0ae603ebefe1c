"""The reference executor: plain torch on any device, for every op of the table.

The samples with the same op in a layer are a group. The host knows the groups and their sizes, so
it does not wait for the device. A group is processed in chunks, to limit temporary memory.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.augment import kernels
from harness.augment.kernels import upload
from harness.augment.lower import Lowered
from harness.augment.ops import OPS, Colour, Kind, Op

# Bytes of the uint8 images in a chunk. Temporary index tensors need 4 to 8 times as much.
_CHUNK_BYTES = {"cpu": 1 << 19, "cuda": 1 << 25}


def run(images: Tensor, lowered: Lowered, fill: Colour, interpolation: str) -> Tensor:
    """Return images uint8 [N, 3, H, W] after all layers, in new contiguous memory."""
    out = images.clone(memory_format=torch.contiguous_format)
    chunk_bytes = _CHUNK_BYTES.get(images.device.type, _CHUNK_BYTES["cuda"])
    chunk_size = max(1, chunk_bytes // max(1, out[:1].numel()))  # images
    colour = upload(np.array(fill, dtype=np.uint8), out.device)
    tables = upload(lowered.tables, out.device)
    for layer, codes in enumerate(lowered.ops):
        changing = lowered.kinds[layer] != Kind.IDENTITY
        for code, op in enumerate(OPS.values()):
            samples = np.flatnonzero(changing & (codes == code))
            for start in range(0, len(samples), chunk_size):
                chunk = samples[start : start + chunk_size]
                index = upload(chunk, out.device)
                group = out.index_select(0, index)
                result = _run_op(op, group, lowered, layer, chunk, tables, colour, interpolation)
                out.index_copy_(0, index, result)
    return out


def _run_op(
    op: Op,
    group: Tensor,
    lowered: Lowered,
    layer: int,
    samples: NDArray[np.int64],
    tables: Tensor,
    colour: Tensor,
    interpolation: str,
) -> Tensor:
    """Return the images of `group` after one op; `samples` are their positions in the batch."""
    device = group.device
    slots = lowered.slots[layer, samples]
    if op.kind == Kind.TABLE:
        return kernels.look_up(group, tables[upload(slots.astype(np.int64), device)][:, None])
    if op.kind == Kind.WARP:
        maps = upload(lowered.maps[slots], device)
        warp = kernels.warp_nearest if interpolation == "nearest" else kernels.warp_bilinear
        return warp(group, maps, colour)
    if op.kind == Kind.BOX:
        return kernels.box(group, upload(lowered.boxes[layer, samples], device), colour)
    assert op.kernel is not None
    values = upload(lowered.weights[layer, samples], device)
    return op.kernel(group, values[:, None, None, None])

"""The reference executor: plain torch on any device, for every op of the table.

Which sample gets which op is known on the host, so the groups of samples have known sizes and the
host does not wait for the device. A group is worked on in chunks, which bound temporary memory.
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

_CHUNK_BYTES = {"cpu": 1 << 19, "cuda": 1 << 25}  # of uint8 images; index temporaries are 4-8 times


def run(images: Tensor, lowered: Lowered, fill: Colour, interpolation: str) -> Tensor:
    """Return images uint8 [N, 3, H, W] after all layers, in new contiguous memory."""
    out = images.clone(memory_format=torch.contiguous_format)
    budget = _CHUNK_BYTES.get(images.device.type, _CHUNK_BYTES["cuda"])
    step = max(1, budget // max(1, out[:1].numel()))
    colour = upload(np.array(fill, dtype=np.uint8), out.device)
    tables = upload(lowered.tables, out.device)
    for layer, codes in enumerate(lowered.ops):
        changing = lowered.kinds[layer] != Kind.IDENTITY
        for code, op in enumerate(OPS.values()):
            samples = np.flatnonzero(changing & (codes == code))
            for part in np.split(samples, range(step, len(samples), step)):
                if not len(part):
                    continue
                index = upload(part, out.device)
                group = out.index_select(0, index)
                result = _run_op(op, group, lowered, layer, part, tables, colour, interpolation)
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

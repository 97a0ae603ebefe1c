"""The Triton executor in Triton's interpreter; `test_triton_executor.py` runs this as a process.

Compares its pixels with those of the torch executor, which other tests compare with Pillow, and
prints how many images it compared. The interpreter takes milliseconds for a block, so the cases
are few and the images small.
"""

import os

os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported

import numpy as np
import torch
from pictures import halves
from pictures import odd as pictures
from test_exact import VALUES

from harness.augment import torch_executor, triton_executor
from harness.augment.executors import triton_or_torch
from harness.augment.lower import lower
from harness.augment.plan import Plan
from harness.augment.policy import parse_policy

STATISTICS = ("Contrast", "AutoContrast", "Equalize")
compared = 0


def check(what, images, plan):
    global compared
    lowered = lower(plan, *images.shape[2:])
    before = images.clone()
    expected = torch_executor.run(images, lowered, plan.fill, plan.interpolation)
    result = triton_executor.run(images, lowered, plan.fill, plan.interpolation)
    wrong = (result != expected).flatten(1).any(dim=1).nonzero().flatten().tolist()
    size = tuple(images.shape[2:])
    assert not wrong, (what, [plan.records(i, size=size) for i in wrong[:5]])
    assert result.is_contiguous()
    assert result.data_ptr() != images.data_ptr()
    assert torch.equal(images, before), what
    compared += len(images)


def every_op(size, interpolation):
    """Each op at each value; those that measure the image on every kind of it, others on one."""
    shown, records = pictures(*size), []
    images = []
    for op, values in VALUES.items():
        for place, value in enumerate(values):
            chosen = range(len(shown)) if op in STATISTICS else (place % 4,)
            for kind in chosen:
                images.append(shown[kind])
                records.append([(op, value)])
    plan = Plan.of(records, fill=(10, 128, 200), interpolation=interpolation)
    check(f"every op, {size}, {interpolation}", torch.stack(images), plan)


assert triton_or_torch(torch.device("cpu")) is triton_executor.run
every_op((7, 11), "nearest")
warps = [[(op, v)] for op in ("ShearX", "ShearY", "TranslateX", "Rotate") for v in VALUES[op][::2]]
bilinear = Plan.of(warps, fill=(10, 128, 200), interpolation="bilinear")
check("bilinear", pictures(7, 11)[2:3].repeat(len(warps), 1, 1, 1), bilinear)

grey = halves()[::16]
for factor in (0.3, 1.9):
    check("a mean on a half", grey, Plan.of([[("Contrast", factor)]] * len(grey)))

chains = parse_policy("uniform(n=3, m=0.8, fill=1/2/3)")  # has the cut-out too
for size in ((1, 1), (1, 7), (7, 1), (2, 9), (3, 3)):
    images = pictures(*size)
    check(size, images, chains.draw(0, size[0], np.arange(len(images))))
several = pictures(47, 61)  # more than one block an image, the last one ragged
strict = parse_policy("randaug_strict(n=2, m=0.7, interpolation=bilinear)")
check("blocks", several, strict.draw(0, 0, np.arange(len(several))))
check("channels_last", several[:2].contiguous(memory_format=torch.channels_last),
      chains.draw(0, 5, np.arange(2)))  # fmt: skip
check("a view that begins off 16 bytes", several[3:4], chains.draw(0, 9, np.arange(1)))
print(f"{compared} images equal")

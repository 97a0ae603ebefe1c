"""The Triton executor in Triton's interpreter; `test_triton_executor.py` runs this as a process.

It compares the pixels with those of the torch executor, which other tests compare with Pillow, and
prints the number of compared images. The interpreter takes milliseconds for a block, so the cases
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

WITH_IMAGE_TABLES = ("Contrast", "AutoContrast", "Equalize")  # their tables depend on the image
compared = 0


def check(case, images, plan):
    global compared
    lowered = lower(plan, *images.shape[2:])
    before = images.clone()
    expected = torch_executor.run(images, lowered, plan.fill, plan.interpolation)
    result = triton_executor.run(images, lowered, plan.fill, plan.interpolation)
    wrong = (result != expected).flatten(1).any(dim=1).nonzero().flatten().tolist()
    size = tuple(images.shape[2:])
    assert not wrong, (case, [plan.records(i, size=size) for i in wrong[:5]])
    assert result.is_contiguous()
    assert result.data_ptr() != images.data_ptr()
    assert torch.equal(images, before), case
    compared += len(images)


def every_op(size, interpolation):
    """Check each op at each value: on all pictures if its table depends on the image, or on one."""
    available = pictures(*size)
    images, records = [], []
    for op, values in VALUES.items():
        for i, value in enumerate(values):
            chosen = available if op in WITH_IMAGE_TABLES else available[i % 4][None]
            for image in chosen:
                images.append(image)
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

chains = parse_policy("uniform(n=3, m=0.8, fill=1/2/3)")  # has every kind of op, also the cut-out
for size in ((1, 1), (1, 7), (7, 1), (2, 9), (3, 3)):
    images = pictures(*size)
    check(size, images, chains.draw(0, size[0], np.arange(len(images))))
large = pictures(47, 61)  # an image takes three blocks, of which the last is not full
strict = parse_policy("randaug_strict(n=2, m=0.7, interpolation=bilinear)")
check("blocks", large, strict.draw(0, 0, np.arange(len(large))))
check("channels_last", large[:2].contiguous(memory_format=torch.channels_last),
      chains.draw(0, 5, np.arange(2)))  # fmt: skip
check("a view that is not aligned to 16 bytes", large[3:4], chains.draw(0, 9, np.arange(1)))
print(f"{compared} images equal")

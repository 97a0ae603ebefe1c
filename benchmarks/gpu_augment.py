"""Check and measure augmentation on a CUDA device. `gpu_check.py` runs these parts.

python benchmarks/gpu_augment.py equality | no_synchronisation | speed | memory

It needs torch, numpy and pydantic only. The exit code is 1 if a check fails.
"""

import statistics
import sys
import time

import numpy as np
import torch
from pictures import halves, odd, spectral

from harness.augment import torch_executor
from harness.augment.batch_transform import BatchTransform, train_batch
from harness.augment.executors import apply, choose_executor
from harness.augment.lower import lower
from harness.augment.plan import Plan
from harness.augment.policy import parse_policy
from harness.augment.spaces import SPACES

REQUIRED_RATE = 200_000  # images/s at 224 px, two ops, batch 512
MOST_MEMORY = 1 << 30  # bytes in addition to the images, batch 1024
SIZES = ((32, 32), (47, 61), (1, 1), (1, 7), (7, 1), (2, 9), (3, 3), (3, 40), (128, 160))
MOST_DIFFERENT = 0.05  # share of values that may differ by one level with bilinear interpolation
_FACTORS = (0.0, 0.1, 0.37, 0.73, 1.0, 1.27, 1.9, 3.0)
_WEIGHTS = (0.0, 0.1, 0.5, 0.9, 1.0)
_SHEARS = (0.01, 0.3, 0.99, -0.07, -1.0)
_PIXELS = (1, 3.4, 32, 200, -2.7, -5)
VALUES = {
    "Identity": (0,),
    "ShearX": _SHEARS,
    "ShearY": _SHEARS,
    "TranslateX": _PIXELS,
    "TranslateY": _PIXELS,
    "Rotate": (0.2, 9, 30, 45, 90, 180, 270, 400, -0.2, -9, -135),
    "Brightness": _FACTORS,
    "Color": _FACTORS,
    "Contrast": _FACTORS,
    "Sharpness": _FACTORS,
    "Posterize": tuple(range(1, 9)),
    "Solarize": (0, 1, 128, 179.2, 255, 256),
    "SolarizeAdd": (0, 1, 11, 110, 255),
    "AutoContrast": _WEIGHTS,
    "Equalize": _WEIGHTS,
    "Invert": _WEIGHTS,
    "Cutout": ((0, 0, 5, 5), (3, 1, 9, 30), (0, 0, 0, 0), (1, 1, 500, 2)),
}


class Comparison:
    """Compares pixels from the device with those from the CPU."""

    def __init__(self):
        self.values = 0  # number of compared values
        self.wrong = 0  # number of results that differ too much
        self.largest_share = 0.0  # of different values in one batch

    def __call__(self, what, images, plan, on_device=None):
        """Compare both executors of the device with the CPU.

        `on_device` are the same images on the device, in another memory layout.
        """
        expected = apply(images, plan).cuda().int()
        device = images.cuda() if on_device is None else on_device
        results = {
            "the chosen executor": apply(device, plan, choose_executor(device.device)),
            "torch_executor": apply(device, plan, torch_executor.run),
        }
        for name, result in results.items():
            difference = (result.int() - expected).abs().flatten(1)
            self.values += difference.numel()
            bad = difference > (1 if plan.interpolation == "bilinear" else 0)
            share = float((difference > 0).double().mean())
            self.largest_share = max(self.largest_share, share)
            if bad.any() or share > MOST_DIFFERENT:
                self.wrong += 1
                worst = int(difference.sum(1).argmax())
                rows = bad.any(dim=1).nonzero().flatten().tolist() or [worst]
                size = tuple(images.shape[2:])
                shown = [(i, plan.records(i, size=size)) for i in rows[:3]]
                print(
                    f"BAD {name}, {what}: {len(rows)} of {len(images)} images differ, by "
                    f"{int(difference.max())} at most, {share:.2%} of values; first {shown}"
                )


def each_op(size, interpolation):
    """Return images and a plan: each op at each value on each special image, in a random order."""
    pictures = odd(*size)
    cases = [[(op, value)] for op, values in VALUES.items() for value in values]
    records = [case for case in cases for _ in pictures]
    order = np.random.default_rng(0).permutation(len(records))
    plan = Plan.of([records[i] for i in order], fill=(10, 128, 200), interpolation=interpolation)
    return pictures.repeat(len(cases), 1, 1, 1)[torch.from_numpy(order)], plan


def equality():
    """Compare pixels of the device with those of the CPU.

    With nearest interpolation all bytes must be equal. With bilinear interpolation a few values may
    differ by one level.
    """
    compare = Comparison()
    for kind in ("nearest", "bilinear"):
        for size in SIZES:
            compare(f"each op at {size}, {kind}", *each_op(size, kind))
        for name in SPACES:
            if name == "none":
                continue
            for magnitude, size in ((0.3, (47, 61)), (1.0, (32, 32)), (0.7, (160, 224))):
                text = f"{name}(m={magnitude}, interpolation={kind})"
                images = torch.cat([odd(*size)] * 10)
                compare(f"{text} at {size}", images, parse_policy(text).draw(0, 0, np.arange(60)))
        print(f"{kind}: at most {compare.largest_share:.2%} of a batch's values apart", flush=True)
        compare.largest_share = 0.0
    for factor in (0.0, 0.3, 1.9):
        compare("a mean on a half", halves(), Plan.of([[("Contrast", factor)]] * 255))
    policy = parse_policy("uniform(n=3, m=0.8)")
    images = odd(47, 61)
    for i in range(len(images)):
        compare("a batch of one", images[i : i + 1], policy.draw(0, 1, np.array([i])))
    images = torch.cat([images] * 8)
    plan = policy.draw(0, 2, np.arange(len(images)))
    device = images.cuda()
    last = device.permute(0, 2, 3, 1).contiguous()
    wide = torch.zeros(len(images), 3, 50, 130, dtype=torch.uint8, device="cuda")
    wide[:, :, 2:49, 4:126:2] = device
    laid_out = {
        "channels_last": device.contiguous(memory_format=torch.channels_last),
        "a view of channels-last memory": last.permute(0, 3, 1, 2),
        "a view with gaps": wide[:, :, 2:49, 4:126:2],
    }
    for what, on_device in laid_out.items():
        before = on_device.clone()
        compare(what, images, plan, on_device)
        if not torch.equal(on_device, before):
            compare.wrong += 1
            print(f"BAD {what}: the input was changed")
    records = [[("Rotate", 9.0)], [("Equalize", 1.0), ("Contrast", 1.3)]]  # for 350 images each
    images = torch.cat([spectral(70, 224)] * 10)
    compare("more than a chunk of a kind", images, Plan.of(records * 350))
    print(f"{compare.values:,} values compared")
    return not compare.wrong


def no_synchronisation():
    """Check that plan, ops, crop, flip, erasing and mixing never wait for the device.

    torch's debug mode raises an error if they do.
    """
    images, labels = spectral(256, 64).cuda(), torch.zeros(256, dtype=torch.int64, device="cuda")
    transform = BatchTransform(crop_padding=4, flip=True, erasing=0.3, mixup=0.2, cutmix=1.0,
                mean=(0.5,) * 3, std=(0.25,) * 3)  # fmt: skip
    for kind in ("nearest", "bilinear"):
        policy = parse_policy(f"uniform(n=3, m=0.8, interpolation={kind})")

        def step(epoch, policy=policy):
            train_batch(
                images, labels, np.arange(256), policy=policy, transform=transform, seed=0,
                epoch=epoch, num_classes=10, dtype=torch.bfloat16, channels_last=True,
                executor=choose_executor(images.device),
            )  # fmt: skip

        step(0)  # the first use of a kernel may load it and wait
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            step(1)
        except RuntimeError as error:
            print(f"{kind}: {error}")
            return False
        finally:
            torch.cuda.set_sync_debug_mode("default")
    print("nothing waits, nearest or bilinear")
    return True


def bandwidth():
    """Return the bytes per second that a plain copy reads and writes."""
    source = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    for _ in range(3):
        target.copy_(source)
    torch.cuda.synchronize()
    begun = time.perf_counter()
    for _ in range(20):
        target.copy_(source)
    torch.cuda.synchronize()
    return 20 * 2 * source.numel() / (time.perf_counter() - begun)


def device_milliseconds(images, plans):
    """Return the median time that the device takes for a plan.

    The device starts when all work has been queued, so it does not wait for the host.
    """
    times, executor = [], choose_executor(images.device)
    for plan in plans:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        torch.cuda._sleep(200_000_000)  # cycles, about 0.1 s, which is longer than queueing takes
        start.record()
        apply(images, plan, executor)
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def speed():
    """Measure images per second of two ops: as in a training, on the host, and on the device."""
    copies, holds = bandwidth(), True
    print(f"copies {copies / 1e9:,.0f} GB/s, read and write")
    policy = parse_policy("randaug(n=2, m=0.3)")
    executor = choose_executor(torch.device("cuda", torch.cuda.current_device()))
    for side, batch in ((224, 512), (64, 2048)):
        images = spectral(64, side).repeat(batch // 64, 1, 1, 1).cuda()
        ids, rates, host = np.arange(batch), [], []
        for number in range(9):
            torch.cuda.synchronize()
            begun = time.perf_counter()
            for epoch in range(10):
                apply(images, policy.draw(0, 10 * number + epoch, ids), executor)
            torch.cuda.synchronize()
            rates.append(10 * batch / (time.perf_counter() - begun))
        for epoch in range(20):
            begun = time.perf_counter()
            lower(policy.draw(1, epoch, ids), side, side)
            host.append(1e3 * (time.perf_counter() - begun))
        device = device_milliseconds(images, [policy.draw(2, epoch, ids) for epoch in range(7)])
        rate, limit = statistics.median(rates[2:]), copies / (2 * images[0].numel())
        print(
            f"{side} px, batch {batch}: {rate:,.0f} images/s; host (draw and lower) "
            f"{statistics.median(host):.2f} ms, device alone {device:.2f} ms a batch "
            f"({1e3 * batch / device:,.0f} images/s); {rate / limit:.1%} of copying each image "
            f"once, device alone {1e3 * batch / device / limit:.1%}"
        )
        if side == 224 and rate < REQUIRED_RATE:
            print(f"fewer than the {REQUIRED_RATE:,} images/s required at 224 px")
            holds = False
    return holds


def memory():
    """Measure temporary memory at 224 px, batch 1024."""
    images = spectral(64, 224).repeat(16, 1, 1, 1).cuda()
    policy = parse_policy("randaug(n=2, m=0.3)")
    executor = choose_executor(images.device)
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    result = apply(images, policy.draw(0, 0, np.arange(1024)), executor)
    peak = torch.cuda.max_memory_allocated() - held - result.numel()
    print(f"{peak / 1e6:,.0f} MB beside input and output, batch 1024 at 224 px")
    return peak < MOST_MEMORY


if __name__ == "__main__":
    part = {f.__name__: f for f in (equality, no_synchronisation, speed, memory)}[sys.argv[1]]
    sys.exit(0 if part() else 1)

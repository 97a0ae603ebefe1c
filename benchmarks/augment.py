"""Images per second of augmentation, against other libraries.

python benchmarks/augment.py [rounds=5]

Every library applies RandAugment with two ops at a fixed magnitude (0.3 of the scale) and nearest
interpolation. The libraries take turns in one process. On a CPU they have one thread, and CPU
seconds are measured. The harness runs twice: with timm's ops, which are always applied, to compare
with timm, and with torchvision's ops, of which Identity takes no time, to compare with torchvision.
A library that is not installed (extra `bench`) is named and left out. On a CUDA device, the share
of the measured copy bandwidth and the peak of memory are printed too.

On a CPU the exit code is 1 if the harness is slower than REQUIRED times timm on PIL.
"""

import importlib.util
import time
from dataclasses import replace

import numpy as np
import pictures
import torch
from gpu_augment import bandwidth
from PIL import Image
from timm.data.auto_augment import rand_augment_transform
from torchvision.transforms import InterpolationMode, v2

from harness.arguments import Option, parse_options
from harness.augment.executors import apply, choose_executor
from harness.augment.policy import parse_policy
from harness.errors import command

SIZES = {32: 256, 64: 128, 224: 32}  # pixels -> batch
REQUIRED = {32: 1.5, 64: 1.5, 224: 1.0}  # times timm on PIL, on a CPU
BINS = 9  # of 31, torchvision's form of the magnitude 0.3; timm's is 3 of 10


def ours(text):
    policy = parse_policy(text)
    policy = replace(policy, space=replace(policy.space, p=1.0))  # as `p1.0` of timm

    def make(images):
        epoch, ids = iter(range(1 << 30)), np.arange(len(images))
        executor = choose_executor(images.device)

        def run():
            apply(images, policy.draw(0, next(epoch), ids), executor)

        return run

    return make


def timm_on_pil(images):
    transform = rand_augment_transform(
        "rand-m3-inc1-p1.0", {"interpolation": Image.NEAREST, "img_mean": (0, 0, 0)}
    )

    def run():
        for image in images:
            picture = Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy()))
            torch.from_numpy(np.array(transform(picture))).permute(2, 0, 1)

    return run


def torchvision_each(images):
    transform = v2.RandAugment(2, BINS, interpolation=InterpolationMode.NEAREST)

    def run():
        for image in images:
            transform(image)

    return run


def torchvision_batch(images):
    transform = v2.RandAugment(2, BINS, interpolation=InterpolationMode.NEAREST)
    return lambda: transform(images)


def kornia_batch(images):
    from kornia.augmentation.auto import RandAugment

    transform = RandAugment(n=2, m=BINS)
    return lambda: transform(images.float() / 255)


OURS, AS_TIMM = "this harness, torchvision's ops", "this harness, timm's ops"
TIMM, TORCHVISION = "timm on PIL", "torchvision v2, each image"
PEERS = {
    OURS: (ours("randaug(n=2, m=0.3)"), "per sample"),
    AS_TIMM: (ours("randaug_timm_inc(n=2, m=0.3, fill=0)"), "per sample"),
    TIMM: (timm_on_pil, "per sample"),
    TORCHVISION: (torchvision_each, "per sample"),
    "torchvision v2, whole batch": (torchvision_batch, "one op for all"),
    "kornia": (kornia_batch, "one op for all"),
}


def measure(images, rounds):
    """Return the median images per second of each library; the libraries take turns."""
    cuda = images.device.type == "cuda"
    clock = time.perf_counter if cuda else time.process_time
    names = [name for name in PEERS if name != "kornia" or importlib.util.find_spec("kornia")]
    if cuda:
        names.remove(TIMM)
    running = {name: PEERS[name][0](images) for name in names}
    seconds = {name: [] for name in names}
    for number in range(rounds + 2):  # the first two warm up
        for name, run in running.items():
            begun = clock()
            run()
            if cuda:
                torch.cuda.synchronize()
            if number > 1:
                seconds[name].append(clock() - begun)
    return {name: len(images) / float(np.median(times)) for name, times in seconds.items()}


def on_gpu(rounds):
    copied = bandwidth()
    print(f"{torch.cuda.get_device_name()}: copies {copied / 1e9:.0f} GB/s, read and write")
    for side, batch in ((32, 4096), (64, 2048), (224, 512)):
        images = pictures.spectral(64, side).repeat(batch // 64, 1, 1, 1).cuda()
        report(side, measure(images, rounds), TORCHVISION)
        limit = copied / (2 * images[0].numel())  # one read and one write of each image
        for name in (OURS, AS_TIMM):
            run = PEERS[name][0](images)
            run()
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            held = torch.cuda.memory_allocated()
            begun = time.perf_counter()
            for _ in range(10 * rounds):
                run()
            torch.cuda.synchronize()
            rate = 10 * rounds * batch / (time.perf_counter() - begun)
            peak = torch.cuda.max_memory_allocated() - held - images.numel()  # less the result
            print(
                f"  {name}: {rate:,.0f} images/s in a row, {rate / limit:.1%} of what one copy of "
                f"each image allows; {peak / 1e6:.0f} MB of temporary memory"
            )


def report(side, rates, peer):
    print(f"{side} px")
    for name, rate in rates.items():
        ratio = f"{rate / rates[peer]:7.2f} x {peer}"
        print(f"  {name:<32} {rate:>11,.0f} images/s  {ratio}, {PEERS[name][1]}")


def main(args):
    rounds = parse_options(args, {"rounds": Option(int, default=5, low=1)})["rounds"]
    if not importlib.util.find_spec("kornia"):
        print("kornia is not installed: left out")
    if torch.cuda.is_available():
        on_gpu(rounds)
        return 0
    torch.set_num_threads(1)
    slow = 0
    for side, batch in SIZES.items():
        rates = measure(pictures.spectral(batch, side), rounds)
        report(side, rates, TIMM)
        ratio = rates[AS_TIMM] / rates[TIMM]
        slow += ratio < REQUIRED[side]
        verdict = "BAD" if ratio < REQUIRED[side] else "ok"
        print(f"  {verdict}: {ratio:.2f} x, {REQUIRED[side]} required")
    return 1 if slow else 0


if __name__ == "__main__":
    command(main, __doc__, needs_arguments=False)

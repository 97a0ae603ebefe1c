"""Trials per core-second of a gang of eight small stages on JPEGs against eight single runs.

python benchmarks/gang.py [resolution=32] [width=0.25] [photographs=2] [copies=1] [device=cpu]

The photographs are those of `benchmarks/loader.py`, so many times as long, read through FFCV and
cropped to a small resolution: decoding is most of a single run, as it is where GPUs train small
models. What decoding takes is measured by itself: the batches of one run, with nothing trained on
them. `copies` of each photograph make an epoch longer.

Fails where the weights of the gang differ in a bit from those of single runs; where decoding is at
least 0.8 of a single run and the gang has less than 3 times the trials per core-second; and on a
CPU where decoding is less than that in the set-up of above. With device=cuda seconds of the clock
are shown, too: there all cores decode, while the device trains.
"""

import contextlib
import io
import sys
import tempfile
import time
from pathlib import Path

import torch
from pictures import synthesise

from harness.data.catalog import CATALOG, image_folder
from harness.data.datasets import load
from harness.data.loader import make_loader
from harness.data.write import main as write
from harness.schema import RunConfig, StageConfig
from harness.store.identity import stage_id
from harness.train import Member, train_gang
from harness.train.distributed import connected

MEMBERS, EPOCHS, IMAGES = 8, 4, 320
WANTED, MOSTLY = 3.0, 0.8  # the gain that is asked for where decoding is so much of a single run


def config(magnitude, side, width):
    return StageConfig.model_validate(
        {
            "seed": 0,
            "dataset": {
                "name": "bench", "validation_size": 10, "resolution": side,
                "crop_scale": [0.25, 1.0],
            },
            "model": {"family": "cifar_resnet", "depth": 8, "width": width},
            "augment": {
                "policy": f"randaug(n=2, m={magnitude})", "crop_padding": 0, "flip": True,
            },
            "recipe": {"epochs": EPOCHS, "batch_size": 64, "optimizer": {"lr": 0.1}},
        }
    )  # fmt: skip


@contextlib.contextmanager
def timed(spent):
    """Append (core-seconds, seconds) of the block to `spent`."""
    cores, begun = time.process_time(), time.perf_counter()
    yield
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    spent.append((time.process_time() - cores, time.perf_counter() - begun))


def train(folder, configs, run, world):
    """Hashes of the final weights of stages side by side, trained in a fresh folder."""
    members = []
    for one in configs:
        place = folder / stage_id(one)
        place.mkdir(parents=True)
        members.append(Member(stage_id(one), one, place, None))
    outcomes = train_gang(members, run, world, lambda: False, lambda: None)
    return [outcome.result["weights_sha256"] for outcome in outcomes]


def decode(one, run, world):
    """The batches of one run, and nothing done with them."""
    dataset = load(one.dataset, run.data_root, run.loader)
    stream = make_loader(dataset, run, one.recipe.batch_size, 0, 1, world.device, EPOCHS)
    for epoch in range(EPOCHS):
        for _ in stream.epoch(one.seed, epoch):
            pass
    stream.close()


def measure(folder, configs, run):
    """(core-seconds, seconds) of decoding, of single runs together and of a gang; equal bits."""
    decoding, single, gang, alone = [], [], [], []
    with connected(run) as world:
        if world.device.type == "cpu":
            torch.set_num_threads(1)
        with contextlib.redirect_stdout(io.StringIO()):
            train(folder / "warm-up", configs[:1], run, world)
            for number, one in enumerate(configs):
                with timed(single):
                    alone += train(folder / f"{number}", [one], run, world)
                with timed(decoding):  # beside each run, for a machine that others use
                    decode(one, run, world)
            with timed(gang):
                together = train(folder / "gang", configs, run, world)
    totals = [tuple(map(sum, zip(*spent, strict=True))) for spent in (decoding, single, gang)]
    return *totals, alone == together


def main(args):
    said = dict(arg.split("=") for arg in args)
    side, width = int(said.get("resolution", "32")), float(said.get("width", "0.25"))
    device, times = said.get("device", "cpu"), int(said.get("photographs", "2"))
    copies = int(said.get("copies", "1"))
    CATALOG["bench"] = image_folder("bench", 10, (IMAGES + 10) * copies, 10)
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name,
        contextlib.redirect_stderr(io.StringIO()),
    ):
        root = Path(name)
        size = synthesise(root / "tree/bench", IMAGES, times, copies)
        words = [f"source={root / 'tree/bench'}", f"out={root / 'beton/bench'}"]
        with contextlib.redirect_stdout(io.StringIO()):
            write(["dataset=bench", *words, "compress_probability=1", "validation_size=10"])
        run = RunConfig(
            engine="ddp", device=device, loader="ffcv", data_root=str(root / "beton"),
            loader_threads=1 if device == "cpu" else None,
        )  # fmt: skip
        configs = [config(0.1 * number, side, width) for number in range(1, MEMBERS + 1)]
        decoding, single, gang, same = measure(root, configs, run)
    share, gain = decoding[0] / single[0], single[0] / gang[0]
    print(
        f"{MEMBERS} stages of {EPOCHS} epochs of {IMAGES * copies} JPEGs of {size:.0f} kB "
        f"at {side} px"
    )
    print(f"  one by one {single[0]:7.1f} core-seconds, {share:.0%} of that for decoding")
    print(f"  a gang     {gang[0]:7.1f} core-seconds: {gain:.2f} x the trials per core-second")
    if device == "cuda":
        print(
            f"  by the clock {single[1]:.1f} s, {decoding[1]:.1f} s for decoding alone, and "
            f"{gang[1]:.1f} s: {single[1] / gang[1]:.2f} x the trials per second"
        )
    print(f"  weights {'equal' if same else 'DIFFER'}")
    if share >= MOSTLY and gain < WANTED:
        print(f"  less than {WANTED:g} x, where decoding is more than {MOSTLY:.0%}")
        return 1
    if device == "cpu" and not args and share < MOSTLY:
        print(f"  decoding is less than {MOSTLY:.0%}, so that this shows nothing")
        return 1
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

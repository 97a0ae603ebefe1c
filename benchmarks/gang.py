"""Trials per core-second of a gang of eight small stages on JPEGs, against eight single runs.

python benchmarks/gang.py [resolution=32] [width=0.25] [photographs=2] [copies=1] [device=cpu]

The photographs are those of `benchmarks/loader.py`, with sides `photographs` times as long. They
are read through FFCV and cropped to a small resolution. So decoding takes most of the time of a
single run, as when GPUs train small models. Decoding is also measured alone: the batches of one run
are read without training on them. With `copies` of each photograph, an epoch is longer.

The exit code is 1

- if the weights of the gang differ in a bit from those of the single runs;
- if decoding takes at least 0.8 of a single run, and the gang has less than 3 times the trials per
  core-second;
- on a CPU with the default settings, if decoding takes less than 0.8 of a single run.

With device=cuda wall-clock seconds are printed too, because all cores decode while the device
trains.
"""

import contextlib
import io
import tempfile
import time
from pathlib import Path

import torch
from pictures import bench_file, bench_set, synthesise

from harness.arguments import Option, parse_options
from harness.data.datasets import load
from harness.data.loader import make_loader
from harness.data.write import main as write
from harness.errors import command
from harness.run_schema import RunConfig
from harness.schema import StageConfig
from harness.store.identity import stage_id
from harness.train import Member, train_gang
from harness.train.distributed import connected

OPTIONS = {
    "resolution": Option(int, default=32, low=1),
    "width": Option(float, default=0.25),
    "photographs": Option(int, default=2, low=1),
    "copies": Option(int, default=1, low=1),
    "device": Option(default="cpu", choices=("cpu", "cuda")),
}
MEMBERS, EPOCHS, IMAGES = 8, 4, 320
REQUIRED_GAIN, DECODING_SHARE = 3.0, 0.8  # required if decoding is this share of a single run


def config(magnitude, side, width, images):
    return StageConfig.model_validate(
        {
            "seed": 0,
            "dataset": {
                **bench_set(images), "resolution": side, "crop_scale": [0.25, 1.0],
            },
            "model": {"family": "cifar_resnet", "depth": 8, "width": width},
            "augment": {
                "policy": f"randaug(n=2, m={magnitude})", "crop_padding": 0, "flip": True,
            },
            "recipe": {"epochs": EPOCHS, "batch_size": 64, "optimizer": {"lr": 0.1}},
        }
    )  # fmt: skip


@contextlib.contextmanager
def timed(times):
    """Append (core-seconds, wall-clock seconds) of the context to `times`."""
    cores, begun = time.process_time(), time.perf_counter()
    yield
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    times.append((time.process_time() - cores, time.perf_counter() - begun))


def train(folder, configs, run, world):
    """Train the stages in one gang in a new folder; return the hashes of their final weights."""
    members = []
    for stage in configs:
        stage_folder = folder / stage_id(stage)
        stage_folder.mkdir(parents=True)
        members.append(Member(stage_id(stage), stage, stage_folder, None))
    outcomes = train_gang(members, run, world, lambda: False, lambda: None)
    return [outcome.result["weights_sha256"] for outcome in outcomes]


def decode(stage, run, world):
    """Read the batches of a stage without training on them."""
    dataset = load(stage.dataset, run.data_root, run.loader)
    batch_size = stage.recipe.batch_size
    loader = make_loader(dataset, run, batch_size, rank=0, world_size=1, device=world.device,
                         epochs=EPOCHS)  # fmt: skip
    for epoch in range(EPOCHS):
        for _ in loader.epoch(stage.seed, epoch):
            pass
    loader.close()


def measure(folder, configs, run):
    """Return (core-seconds, seconds) of decoding, of all single runs, and of the gang.

    The fourth value is True if the gang has the same final weights as the single runs.
    """
    decoding, single, gang = [], [], []
    single_weights = []
    with connected(run) as world:
        if world.device.type == "cpu":
            torch.set_num_threads(1)
        with contextlib.redirect_stdout(io.StringIO()):
            train(folder / "warm-up", configs[:1], run, world)
            for number, stage in enumerate(configs):
                with timed(single):
                    single_weights += train(folder / f"{number}", [stage], run, world)
                with timed(decoding):  # after each run, because other load on the machine varies
                    decode(stage, run, world)
            with timed(gang):
                gang_weights = train(folder / "gang", configs, run, world)
    totals = [tuple(map(sum, zip(*times, strict=True))) for times in (decoding, single, gang)]
    return *totals, single_weights == gang_weights


def main(args):
    options = parse_options(args, OPTIONS)
    side, width, device = options["resolution"], options["width"], options["device"]
    times, copies = options["photographs"], options["copies"]
    images = (IMAGES + 10) * copies
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name,
        contextlib.redirect_stderr(io.StringIO()),
    ):
        root = Path(name)
        size = synthesise(root / "tree/bench", IMAGES, times, copies)
        words = [f"source={root / 'tree/bench'}", f"out={root / 'beton/bench'}"]
        file = bench_file(root, images)
        with contextlib.redirect_stdout(io.StringIO()):
            write([f"dataset={file}", *words, "compress_probability=1"])
        run = RunConfig(
            engine="ddp", device=device, loader="ffcv", data_root=str(root / "beton"),
            loader_threads=1 if device == "cpu" else None,
        )  # fmt: skip
        configs = [config(0.1 * number, side, width, images) for number in range(1, MEMBERS + 1)]
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
            f"  wall clock: one by one {single[1]:.1f} s, decoding alone {decoding[1]:.1f} s, the "
            f"gang {gang[1]:.1f} s: {single[1] / gang[1]:.2f} x the trials per second"
        )
    print(f"  weights {'equal' if same else 'DIFFER'}")
    if share >= DECODING_SHARE and gain < REQUIRED_GAIN:
        print(
            f"  less than {REQUIRED_GAIN:g} x although decoding is more than {DECODING_SHARE:.0%}"
        )
        return 1
    if device == "cpu" and not args and share < DECODING_SHARE:
        print(f"  decoding is less than {DECODING_SHARE:.0%}, so the gain cannot be judged")
        return 1
    return 0 if same else 1


if __name__ == "__main__":
    command(main, __doc__, needs_arguments=False)

"""Trials per core-second of a gang of eight small stages on JPEGs against eight single runs.

python benchmarks/gang.py [resolution=32] [width=0.25] [photographs=2] [copies=1] [device=cpu]

The photographs are those of `benchmarks/loader.py`, so many times as long, read through FFCV and
cropped to a small resolution: decoding is most of a single run, as it is where GPUs train small
models. Also says whether the bits are equal. With device=cuda all cores decode, and seconds of the
clock are compared; `copies` of each photograph make an epoch longer.
"""

import contextlib
import io
import sys
import tempfile
import time
from pathlib import Path

import loader as photographs
import torch

from harness.data.catalog import CATALOG, image_folder
from harness.data.write import main as write
from harness.schema import RunConfig, StageConfig
from harness.store.identity import stage_id
from harness.train.distributed import connected
from harness.train.loop import Member, train_gang

MEMBERS, EPOCHS, IMAGES = 8, 4, 320
WANTED, SHARED = 3.0, 0.8  # the gain that is asked for where so much of a single run is shared


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


def train(folder, configs, run, world):
    """Core-seconds (on a GPU seconds) and outcomes of stages side by side, in a fresh folder."""
    members = []
    for one in configs:
        place = folder / stage_id(one)
        place.mkdir(parents=True)
        members.append(Member(stage_id(one), one, place, None))
    clock = time.process_time if run.device == "cpu" else time.perf_counter
    begun = clock()
    outcomes = train_gang(members, run, world, lambda: False, lambda: None)
    return clock() - begun, outcomes


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
        size = photographs.synthesise(root / "tree/bench", IMAGES, times, copies)
        words = [f"source={root / 'tree/bench'}", f"out={root / 'beton/bench'}"]
        with contextlib.redirect_stdout(io.StringIO()):
            write(["dataset=bench", *words, "compress_probability=1", "validation_size=10"])
        run = RunConfig(
            engine="ddp", device=device, loader="ffcv", data_root=str(root / "beton"),
            loader_threads=1 if device == "cpu" else None,
        )  # fmt: skip
        configs = [config(0.1 * number, side, width) for number in range(1, MEMBERS + 1)]
        with connected(run) as world:
            torch.set_num_threads(1)
            with contextlib.redirect_stdout(io.StringIO()):
                train(root / "warm-up", configs[:1], run, world)
                alone = [train(root / f"{i}", [one], run, world) for i, one in enumerate(configs)]
                gang, together = train(root / "gang", configs, run, world)
        single = sum(seconds for seconds, _ in alone)
        hashes = [outcome.result["weights_sha256"] for _, (outcome,) in alone]
        same = hashes == [outcome.result["weights_sha256"] for outcome in together]
    # s = d + c alone, d + 8 c together: what of a single run is shared
    shared = (single - gang) / (MEMBERS - 1) / (single / MEMBERS)
    unit = "core-second" if device == "cpu" else "second"
    print(
        f"{MEMBERS} stages of {EPOCHS} epochs of {IMAGES * copies} JPEGs of {size:.0f} kB "
        f"at {side} px"
    )
    print(f"  one by one {single:7.1f} {unit}s, {shared:.0%} of each is shared by a gang")
    print(f"  a gang     {gang:7.1f} {unit}s: {single / gang:.2f} x the trials per {unit}")
    print(f"  bits {'equal' if same else 'DIFFER'}")
    if device != "cpu":  # its kernels do not promise bits, and its decoders are other cores
        return 0
    return 0 if same and (single / gang >= WANTED or shared < SHARED) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

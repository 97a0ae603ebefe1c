"""Trials per core-second of a gang of eight small stages on JPEGs against eight single runs.

python benchmarks/gang.py [resolution=64] [width=0.25]

The images are those of `benchmarks/loader.py`, read through FFCV at full size and cropped to a
small resolution, so that decoding is most of a single run. Also says whether the bits are equal.
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

MEMBERS, EPOCHS, IMAGES = 8, 2, photographs.IMAGES


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
    """Core-seconds and outcomes of these stages side by side, in a fresh folder."""
    members = []
    for one in configs:
        place = folder / stage_id(one)
        place.mkdir(parents=True)
        members.append(Member(stage_id(one), one, place, None))
    begun = time.process_time()
    outcomes = train_gang(members, run, world, lambda: False, lambda: None)
    return time.process_time() - begun, outcomes


def main(args):
    said = dict(arg.split("=") for arg in args)
    side, width = int(said.get("resolution", "64")), float(said.get("width", "0.25"))
    CATALOG["bench"] = image_folder("bench", 10, IMAGES + 10, 10)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        root = Path(name)
        photographs.synthesise(root / "tree/bench")
        words = [f"source={root / 'tree/bench'}", f"out={root / 'beton/bench'}"]
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            write(["dataset=bench", *words, "max_resolution=500", "validation_size=10"])
        run = RunConfig(
            engine="ddp", device="cpu", loader="ffcv", loader_threads=1,
            data_root=str(root / "beton"),
        )  # fmt: skip
        configs = [config(0.1 * number, side, width) for number in range(1, MEMBERS + 1)]
        with connected(run) as world:
            torch.set_num_threads(1)
            train(root / "warm-up", configs[:1], run, world)
            alone = [train(root / f"alone{i}", [one], run, world) for i, one in enumerate(configs)]
            gang, together = train(root / "gang", configs, run, world)
        single = sum(seconds for seconds, _ in alone)
        hashes = [outcome.result["weights_sha256"] for _, (outcome,) in alone]
        same = hashes == [outcome.result["weights_sha256"] for outcome in together]
    # s = d + c alone, d + 8 c together: what of a single run is shared
    shared = (single - gang) / (MEMBERS - 1) / (single / MEMBERS)
    print(f"{MEMBERS} stages of {EPOCHS} epochs of {IMAGES} images at {side} px, width {width:g}")
    print(f"  one by one {single:7.1f} core-seconds, {shared:.0%} of each is shared by a gang")
    print(
        f"  a gang     {gang:7.1f} core-seconds: {single / gang:.2f} x the trials per core-second"
    )
    print(f"  bits {'equal' if same else 'DIFFER'}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

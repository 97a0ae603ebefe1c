"""Two ranks train; rank 1 dies without a word after its third step."""

import os
import signal
import sys
from pathlib import Path

from conftest import Stages

from harness.schema import RunConfig
from harness.train.distributed import connected

with connected(RunConfig(processes=2, device="cpu")) as world:
    steps = iter(range(10**6))

    def die():
        if world.rank == 1 and next(steps) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return False

    stages = Stages(Path(sys.argv[1]), world)
    stages.train(stages.toy({"recipe.epochs": 1000}), stop=die)
    print("unreachable")

"""Train a gang in a process that the test kills: `gang.py FOLDER CONFIG...` (configs as JSON)."""

import sys
from pathlib import Path

from conftest import Stages

from harness.run_schema import RunConfig
from harness.schema import StageConfig
from harness.train.distributed import connected

root, *configs = sys.argv[1:]
with connected(RunConfig(device="cpu")) as world:
    stages = Stages(Path(root), world)
    stages.train(*map(StageConfig.model_validate_json, configs), checkpoint_seconds=0.05)

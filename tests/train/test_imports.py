"""What a training process leaves unloaded, and that it is there for who wants it."""

import subprocess
import sys

import pytest

TRAIN = """
import sys
import torch
from harness.schema import OptimizerConfig, RecipeConfig, RunConfig
from harness.train.distributed import connected
from harness.train.engine import make_engine
run = RunConfig(device="cpu", engine=sys.argv[1])
recipe = RecipeConfig(epochs=1, batch_size=4, optimizer=OptimizerConfig(name=sys.argv[2], lr=0.1))
with connected(run) as world:
    engine = make_engine(torch.nn.Linear(3, 2), recipe, run, world)
    batch = torch.ones(4, 3), torch.zeros(4, dtype=torch.int64)
    engine.train_step([batch], 0.1)
    engine.load_state(engine.state())
    engine.train_step([batch], 0.1)
    engine.close()
    torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(3, 2))  # several ranks
heavy = {"torch._dynamo.symbolic_convert", "torch._inductor", "sympy", "mlflow", "wandb"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
COMPILE = """
import torch._dynamo.config
assert torch.compile(lambda x: 2 * x + 1, backend="eager")(torch.ones(3)).tolist() == [3.0] * 3
assert torch._dynamo is sys.modules["torch._dynamo"]
assert torch._dynamo.config is sys.modules["torch._dynamo.config"]
assert "torch._dynamo.symbolic_convert" in sys.modules
torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=0.1).step()
import mlflow
assert mlflow.__version__
"""


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ddp", "deepspeed"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_training_loads_neither_compiler_nor_tracker_and_both_still_work(engine, optimizer):
    code = TRAIN + (COMPILE if engine == "deepspeed" else "")
    subprocess.run([sys.executable, "-c", code, engine, optimizer], check=True, timeout=120)

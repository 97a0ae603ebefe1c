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
DEFERRED = """
import sys
import torch
from harness.imports import defer_compiler
defer_compiler()
assert torch._dynamo.disable is not None and "torch._dynamo.exc" not in sys.modules
"""
THREADS = """
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(4) as pool:
    found = list(pool.map(lambda _: torch._dynamo.optimize, range(4)))
assert len(set(found)) == 1
"""
BROKEN = """
sys.modules["sympy"] = None
for _ in range(2):
    try:
        torch._dynamo.optimize
    except ImportError as error:
        assert "sympy" in str(error), error
    else:
        raise AssertionError("it was there")
"""
WHOLE = """
compiled = torch.compile(lambda x: 2 * x + 1, backend="eager")
assert compiled(torch.ones(3)).tolist() == [3.0] * 3
import torch._dynamo
import torch._dynamo.config, torch._dynamo.eval_frame, torch._dynamo.utils
from torch._dynamo import convert_frame
assert torch._dynamo is sys.modules["torch._dynamo"] and type(torch._dynamo) is type(sys)
assert convert_frame.config is torch._dynamo.config is sys.modules["torch._dynamo.config"]
assert convert_frame.exc is sys.modules["torch._dynamo.exc"]
module = torch.compile(torch.nn.Linear(2, 2), backend="eager")
assert isinstance(module, torch._dynamo.eval_frame.OptimizedModule)
assert torch._dynamo.config.__spec__.origin.endswith("config.py")
assert not hasattr(torch._dynamo, "no_such_name")
assert [type(finder).__name__ for finder in sys.meta_path].count("_Below") == 0
torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=0.1).step()
"""


def python(code, *words):
    subprocess.run([sys.executable, "-c", code, *words], check=True, timeout=120)


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "optimizer"), [("ddp", "sgd"), ("deepspeed", "adamw")])
def test_training_loads_neither_compiler_nor_tracker(engine, optimizer):
    python(TRAIN + "import mlflow\nassert mlflow.__version__\n", engine, optimizer)


@pytest.mark.slow
@pytest.mark.parametrize(
    "first",
    [
        "",  # torch.compile
        "import torch._dynamo.config",
        "from torch._dynamo.exc import Unsupported",
        "torch._dynamo.utils.counters",
    ],
)
def test_the_compiler_is_whole_however_it_is_first_met(first):
    python(f"{DEFERRED}{first}\n{WHOLE}")


@pytest.mark.slow
def test_threads_that_meet_the_compiler_at_once_find_it():
    python(DEFERRED + THREADS)


@pytest.mark.slow
def test_a_compiler_that_cannot_be_loaded_says_why_each_time():
    python(DEFERRED + BROKEN)

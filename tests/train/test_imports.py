"""What a training process leaves unloaded, and that it is there for who wants it."""

import pytest

TRAIN = """
import sys
import torch
name, zero_stages, optimizer = {words}
from harness.schema import OptimizerConfig, RecipeConfig, RunConfig
from harness.train.distributed import connected
from harness.train.engine import make_engine
recipe = RecipeConfig(epochs=1, batch_size=4, optimizer=OptimizerConfig(name=optimizer, lr=0.1))
with connected(RunConfig(device="cpu")) as world:
    for zero in zero_stages:
        run = RunConfig(device="cpu", engine=name, zero_stage=zero)
        engine = make_engine(torch.nn.Linear(3, 2), recipe, run, world)
        batch = torch.ones(4, 3), torch.zeros(4, dtype=torch.int64)
        engine.train_step([batch], 0.1)
        engine.load_state(engine.state())
        engine.train_step([batch], 0.1)
        engine.close()
    torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(3, 2))  # several ranks
"""
LIGHT = """
heavy = {"torch._dynamo.symbolic_convert", "torch._inductor", "sympy", "mlflow", "wandb"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
TIMM = """
import sys
from harness.models import registry
from harness.schema import ModelConfig
model = ModelConfig(family="cifar_vit", depth=2, width=0.25)
registry.build(model, 10, seed=0, resolution=32)
from harness.compress import channels
channels._torch_pruning()
"""
TORCHVISION = """
import torch._dynamo.utils
import torchvision.ops
import wandb
asked = sys.modules["torchvision.ops.roi_align"].is_compile_supported
for device in ("cpu", "cuda", "mps"):
    assert asked(device) is torch._dynamo.utils.is_compile_supported(device)
assert "torch._dynamo.exc" in sys.modules and wandb.__version__
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
kept = torch._dynamo.utils.is_compile_supported  # as torchvision keeps it
for ask in 2 * [lambda: torch._dynamo.optimize, lambda: kept("cpu")]:
    try:
        ask()
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


@pytest.mark.slow
@pytest.mark.parametrize("words", [("ddp", [0], "sgd"), ("deepspeed", [0, 1], "adamw")])
def test_training_loads_neither_compiler_nor_tracker(in_child, words):
    mlflow = "import mlflow\nassert mlflow.__version__\n"  # what DeepSpeed does not see
    in_child(TRAIN.format(words=words) + LIGHT + mlflow * (words[0] == "deepspeed"))


@pytest.mark.slow
def test_timms_parts_load_neither_compiler_nor_tracker(in_child):
    in_child(TIMM + LIGHT + TORCHVISION)


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
def test_the_compiler_is_whole_however_it_is_first_met(in_child, first):
    in_child(f"{DEFERRED}{first}\n{WHOLE}")


@pytest.mark.slow
def test_threads_that_meet_the_compiler_at_once_find_it(in_child):
    in_child(DEFERRED + THREADS)


@pytest.mark.slow
def test_a_compiler_that_cannot_be_loaded_says_why_each_time(in_child):
    in_child(DEFERRED + BROKEN)

"""An op from a plug-in file is drawn, applied, replayed by Pillow and used in training."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from harness import plugins
from harness.augment import Kind, Op, ops, register_op
from harness.augment.executors import apply, choose_executor
from harness.augment.plan import Plan
from harness.augment.policy import parse_policy
from harness.errors import UserError
from harness.store import provenance

ROOT = Path(__file__).parents[2]
MIRROR = """
from harness.augment import Kind, Op, register_op

def mirror(images, weights):  # the input blended with its mirror image
    from harness.augment.kernels import blend
    return blend(images, images.flip(3), weights)

def mirror_by_pillow(image, weight, fill, resample):
    from PIL import Image, ImageOps
    return Image.blend(image, ImageOps.mirror(image), weight)

register_op(Op(name="Mirror", kind=Kind.KERNEL, unit="weight of the blend", low=0.0, high=1.0,
               neutral=0.0, kernel=mirror, pillow=mirror_by_pillow))
"""
SPACE = """
ops:
  Mirror: {values: [0, 1]}
  Rotate: {values: [0, 30], signed: true}
  Equalize: {values: [0, 1]}
"""
GRID = """# An op of a plug-in file, for tests.
defaults:
  - override /dataset: digits
  - override /model: cifar_resnet
  - override /recipe: quick
model: {{depth: 8}}
dataset: {{train_size: 64, validation_size: 64, test_size: 64}}
recipe: {{epochs: 1, batch_size: 32}}
augment: {{policy: "{space}(n=1)"}}
run: {{engine: ddp}}
axes:
  width: [0.25]
  magnitude: [0.5]
  seed: [0]
"""


@pytest.fixture
def op_table():
    """Restores the op table after the test."""
    names, imported = set(ops.OPS), dict(plugins._imported)
    yield
    for name in ops.OPS.keys() - names:
        del ops.OPS[name], ops.CODES[name]
    for path in plugins._imported.keys() - imported.keys():
        del plugins._imported[path]


@pytest.fixture
def space(op_table, tmp_path, monkeypatch):
    """The path of a space that draws an op of a plug-in file."""
    (tmp_path / "mirror.py").write_text(MIRROR)
    (tmp_path / "space.yaml").write_text(SPACE)
    monkeypatch.setenv(plugins.PLUGINS, str(tmp_path / "mirror.py"))
    return str(tmp_path / "space.yaml")


def test_it_is_drawn_and_gives_pillows_pixels(space, pictures, by_pillow):
    images = pictures(47, 61).repeat(10, 1, 1, 1)
    plan = parse_policy(f"{space}(n=2, m=0.7, spread=uniform)").draw(0, 0, np.arange(len(images)))
    assert (plan.ops == ops.CODES["Mirror"]).mean() > 0.2
    expected = by_pillow(images, plan)
    assert torch.equal(apply(images, plan), expected)
    # Numba does not know the op, so plain torch augments the whole batch.
    assert torch.equal(apply(images, plan, choose_executor(images.device)), expected)


def test_its_records_can_be_written_by_hand(space):
    plan = Plan.of([[("Mirror", 0.25)], [("Rotate", 9.0)]])
    assert plan.records(0) == [("Mirror", 0.25)]
    with pytest.raises(UserError, match="from 0 to 1"):
        Plan.of([[("Mirror", 1.5)]])
    with pytest.raises(UserError, match="did you mean 'Mirror'"):
        Plan.of([[("mirror", 0.5)]])


def test_the_chosen_executor_runs_a_batch_in_which_its_value_changes_nothing(space):
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    calls = []

    def executor(images, lowered, fill, interpolation):
        calls.append(lowered)
        return images

    apply(images, Plan.of([[("Mirror", 0.0)], [("Rotate", 9.0)]]), executor)
    assert len(calls) == 1
    apply(images, Plan.of([[("Mirror", 0.5)], [("Rotate", 9.0)]]), executor)
    assert len(calls) == 1


ONE_FUNCTION = {
    Kind.TABLE: {"table": lambda values: np.rint(np.arange(256) * values[:, None]).astype("u1")},
    Kind.WARP: {"matrix": lambda values, height, width: (
        np.array([[1, 0, -1, 0, 1, 0]]) * 1.0 * values[:, None])},
    Kind.KERNEL: {"kernel": lambda images, values: (images * values).to(torch.uint8)},
}  # fmt: skip


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("kind", ONE_FUNCTION)
def test_a_row_needs_one_function_for_all_executors_and_pillow(
    op_table, kind, interpolation, pictures, by_pillow, executors
):
    function = ONE_FUNCTION[kind]
    register_op(Op(name="Own", kind=kind, unit="x", low=0.2, high=1.0, neutral=1.0, **function))
    images = pictures(47, 61)
    plan = Plan.of([[("Own", 0.5)], [("Own", 0.7), ("Rotate", 9.0)], [("Equalize", 1.0)]] * 2,
                   fill=(9, 8, 7), interpolation=interpolation)  # fmt: skip
    expected = by_pillow(images, plan)
    assert not torch.equal(expected, images)
    for execute in (*executors.values(), apply):
        assert torch.equal(execute(images, plan), expected)


ROW = {"name": "Own", "kind": Kind.KERNEL, "unit": "weight", "low": 0.0, "high": 1.0,
       "neutral": 0.0, "kernel": lambda images, weights: images,
       "pillow": lambda image, weight, fill, resample: image}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "Rotate"}, "op 'Rotate' is already registered: give the new op another name"),
        ({"kind": Kind.COLOR}, "only for built-in ops; valid: Kind.TABLE, Kind.WARP, Kind.KERNEL"),
        ({"kernel": None}, "Kind.KERNEL needs the function `kernel`"),
        ({"kind": Kind.TABLE}, "Kind.TABLE needs the function `table`"),
        ({"neutral": 2.0}, "from low=0 to high=1, not 2"),
        ({"neutral": float("nan")}, "the value that changes nothing"),
    ],
)
def test_a_row_that_is_incomplete_is_refused(op_table, changes, message):
    with pytest.raises(UserError, match=message):
        register_op(Op(**{**ROW, **changes}))
    assert "Own" not in ops.OPS


@pytest.mark.slow
def test_a_trial_trains_with_it(space, tmp_path):
    (tmp_path / "mine.yaml").write_text(GRID.format(space=space))
    process = subprocess.run(
        [sys.executable, "-m", "harness.launch", f"grid={tmp_path / 'mine.yaml'}",
         f"store={tmp_path / 'store'}"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=tmp_path,
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stdout + process.stderr
    (result,) = (tmp_path / "store").rglob("result.json")
    (record,) = provenance.records(result.parent)
    assert "plugin mirror.py" in record["files"]

"""The result for a sample does not depend on its batch, and wrong input is refused."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.augment import numba_executor, torch_executor
from harness.augment.executors import apply, choose_executor
from harness.augment.lower import lower
from harness.augment.plan import Plan
from harness.augment.policy import parse_policy
from harness.cluster import launch_folder
from harness.errors import UserError

ROOT = Path(__file__).parents[2]
POLICY = parse_policy("uniform(n=3, m=0.8)")  # has every kind of op, also the cut-out
IDS = np.arange(300, 348)


@pytest.fixture(scope="module")
def batch(pictures):
    images = pictures(47, 61).repeat(8, 1, 1, 1)
    return images, POLICY.draw(0, 0, IDS)


def test_a_batch_of_one_equals_a_batch_of_many_in_any_order(batch, execute):
    images, plan = batch
    whole = execute(images, plan)
    order = np.random.default_rng(0).permutation(len(images))
    shuffled = execute(images[torch.from_numpy(order)], POLICY.draw(0, 0, IDS[order]))
    assert torch.equal(shuffled, whole[torch.from_numpy(order)])
    for i in range(0, len(images), 5):
        alone = execute(images[i : i + 1], POLICY.draw(0, 0, IDS[i : i + 1]))
        assert torch.equal(alone[0], whole[i])


@pytest.mark.parametrize("images_a_chunk", [1, 3, 1000])
def test_the_size_of_a_chunk_does_not_matter(batch, monkeypatch, images_a_chunk):
    images, plan = batch
    arguments = images, lower(plan, *images.shape[2:]), plan.fill, plan.interpolation
    whole = torch_executor.run(*arguments)
    monkeypatch.setitem(torch_executor._CHUNK_BYTES, "cpu", images_a_chunk * images[0].numel())
    assert torch.equal(torch_executor.run(*arguments), whole)


def test_memory_layout_does_not_matter_and_the_input_does_not_change(batch, execute):
    images, plan = batch
    whole = execute(images.clone(), plan)
    wide = torch.zeros(2 * len(images), 3, 50, 70, dtype=torch.uint8)
    view = wide[::2, :, 2:49, 5:66]
    view.copy_(images)
    layouts = [
        images.contiguous(memory_format=torch.channels_last),
        view,
        images.transpose(2, 3).contiguous().transpose(2, 3),
    ]
    for laid_out in layouts:
        before = laid_out.clone()
        result = execute(laid_out, plan)
        assert torch.equal(result, whole)
        assert result.is_contiguous()
        assert torch.equal(laid_out, before)


@pytest.mark.parametrize("policy", [POLICY, parse_policy("none")], ids=str)
def test_the_result_is_new_memory_even_if_nothing_is_done(batch, policy):
    images, _ = batch
    result = apply(images, policy.draw(0, 0, IDS))
    assert result.data_ptr() != images.data_ptr()


def test_an_empty_batch_gives_an_empty_batch():
    images = torch.zeros(0, 3, 32, 32, dtype=torch.uint8)
    assert apply(images, POLICY.draw(0, 0, IDS[:0])).shape == images.shape


@pytest.mark.parametrize(
    ("images", "word"),
    [
        (torch.zeros(2, 3, 8, 8), "float32"),
        (np.zeros((2, 3, 8, 8), dtype=np.uint8), "ndarray"),
        (torch.zeros(2, 1, 8, 8, dtype=torch.uint8), r"\[2, 1, 8, 8\]"),
        (torch.zeros(2, 8, 8, 3, dtype=torch.uint8), r"\[2, 8, 8, 3\]"),
        (torch.zeros(3, 8, 8, dtype=torch.uint8), r"\[3, 8, 8\]"),
        (torch.zeros(5, 3, 8, 8, dtype=torch.uint8), "2 samples does not fit 5"),
        (torch.zeros(2, 3, 8193, 1, dtype=torch.uint8), "8193"),
    ],
)
def test_other_images_are_refused_in_a_sentence(images, word):
    with pytest.raises(UserError, match=word):
        apply(images, Plan.of([[("Rotate", 9.0)]] * 2))


def test_the_global_random_state_does_not_change(batch):
    images, _ = batch
    torch.manual_seed(1)
    np.random.seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    apply(images, POLICY.draw(0, 0, IDS))
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])


def test_on_a_cpu_the_choice_is_numba_and_gives_the_pixels_of_plain_torch(batch):
    images, plan = batch
    executor = choose_executor(torch.device("cpu"))
    assert executor is numba_executor.run
    assert torch.equal(apply(images, plan, executor), apply(images, plan))


def test_without_numba_the_choice_is_plain_torch(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert choose_executor(torch.device("cpu")) is torch_executor.run


def test_apply_uses_plain_torch_unless_it_is_given_an_executor(batch):
    images, plan = batch
    lowered = []

    def record(images, plan, fill, interpolation):
        lowered.append(plan)
        return images

    apply(images, plan)
    assert not lowered
    assert apply(images, plan, record) is images
    assert len(lowered) == 1


SMALL = """
import sys, torch
{before}
from harness.augment import numba_executor
from harness.augment.lower import lower
from harness.augment.plan import Plan
images = torch.arange(192, dtype=torch.uint8).view(1, 3, 8, 8)
plan = Plan.of([[("Invert", 1.0)]])
result = numba_executor.run(images, lower(plan, 8, 8), plan.fill, plan.interpolation)
assert torch.equal(result, 255 - images)
"""


@pytest.mark.slow
def test_the_copy_of_the_code_that_jobs_run_contains_the_compiled_loops(in_child, tmp_path):
    in_child(SMALL.format(before=""))  # fills the cache unless it is filled
    code = launch_folder.take_snapshot(tmp_path)
    in_child(
        SMALL.format(before=f"sys.path.insert(0, {str(code)!r})")
        + f"assert numba_executor.__file__.startswith({str(code)!r})\n"
        + "assert not numba_executor._run_batch.compiled.stats.cache_misses\n"
    )


def test_the_package_exports_its_functions():
    import harness.augment

    for name in harness.augment.__all__:
        assert getattr(harness.augment, name).__module__.startswith("harness.augment."), name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        harness.augment.nothing  # noqa: B018


def test_spaces_policies_and_plans_import_neither_torch_nor_numba():
    code = (
        "import sys, numpy as np\n"
        "from harness.augment import Plan, Policy, parse_policy, register_op\n"
        "plan = parse_policy('randaug(n=2, m=0.3)').draw(0, 0, np.arange(4))\n"
        "str(plan), plan.records(0, size=(8, 8))\n"
        "heavy = {'torch', 'numba', 'PIL', 'yaml', 'scipy', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=300)

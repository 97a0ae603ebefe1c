"""The examples in docs/augment.md and in the docstring of `plan` work as printed."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.augment import ops
from harness.augment import plan as plan_module
from harness.augment.policy import parse_policy, with_magnitude

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "augment.md").read_text()


def snippets(heading: str, language: str) -> list[str]:
    part = TEXT.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", part, flags=re.DOTALL)


def test_the_example_of_a_space_can_be_drawn(tmp_path):
    (table,) = snippets("A space of your own", "yaml")
    path = tmp_path / "gentle.yaml"
    path.write_text(table)
    policy = parse_policy(with_magnitude(f"{path}(n=2)", 0.5))
    assert (policy.n, policy.fill) == (2, (128, 128, 128))
    drawn = policy.draw(0, 0, np.arange(200))
    kept = drawn.values[drawn.ops == ops.CODES["Posterize"]]
    assert np.unique(kept).tolist() == [6.0]


OWN_OP = """
import os, sys
os.environ["HARNESS_PLUGINS"] = {plugin!r}
import numpy as np, torch
from PIL import Image
from harness.augment import Plan, apply, parse_policy
from harness.augment.replay import replay
images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (60, 3, 9, 7), dtype=np.uint8))
values = (0.1, 0.5, 2.2, 10.0)
plans = [
    Plan.of([[("Gamma", values[i % len(values)])] for i in range(60)]),
    parse_policy({table!r} + "(m=0.6)").draw(0, 0, np.arange(60)),
]
for plan in plans:
    result = apply(images, plan)
    assert not torch.equal(result, images)
    for i, image in enumerate(images):
        picture = Image.fromarray(image.permute(1, 2, 0).numpy().copy())
        expected = np.asarray(replay(picture, plan.records(i, size=(9, 7)))).transpose(2, 0, 1)
        assert np.array_equal(result[i].numpy(), expected), plan.records(i)
"""


@pytest.mark.slow
def test_the_example_of_an_op_gives_the_pixels_of_its_replay(in_child, tmp_path):
    (file,) = snippets("An op of your own", "python")
    (space,) = snippets("An op of your own", "yaml")
    plugin, table = tmp_path / "gamma.py", tmp_path / "gamma.yaml"
    plugin.write_text(file)
    table.write_text(space)
    in_child(OWN_OP.format(plugin=str(plugin), table=str(table)))


def test_the_examples_of_plans_print_the_right_records():
    (code,) = snippets("Plans", "python")
    images = torch.zeros(8, 3, 32, 32, dtype=torch.uint8)
    variables = {"ids": np.arange(8), "images_u8": images}
    exec(code, variables)
    printed = re.search(r"plan\.records\(3, size=\(32, 32\)\)  # (\[.*?\])", code)
    assert str(variables["plan"].records(3, size=(32, 32))) == printed[1].replace('"', "'")
    example = re.search(r"draw\((.*?)\)\n.*plan\.records\(3.*?# (\[.*\])", plan_module.__doc__)
    plan = eval(f'parse_policy("randaug(n=2, m=0.3)").draw({example[1]})')
    assert str(plan.records(3, size=(32, 32))) == example[2].replace('"', "'")

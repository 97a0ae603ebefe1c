"""A store with a small finished sweep on the digits, which the commands of this folder read."""

import pytest

from harness.commands import launch

GRID = """defaults: [{override /dataset: digits}, {override /recipe: quick}]
axes: {width: [0.1, 0.25], magnitude: [none, 0.5], seed: [0, 1]}
model: {family: cifar_resnet, depth: 8}
recipe: {epochs: 1, batch_size: 32}
dataset: {train_size: 64, validation_size: 100, test_size: 60}
run: {engine: ddp, device: cpu}
"""


@pytest.fixture(scope="session")
def sweep(tmp_path_factory):
    """The words that name a finished sweep of two widths, two magnitudes and two seeds."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "small.yaml").write_text(GRID)
    words = [f"grid={folder / 'small.yaml'}", f"store={folder / 'store'}"]
    assert launch.main([*words, "run.gang=8"]) == 0
    return words

import json
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "golden_losses.json"


def test_a_toy_run_loses_as_it_always_did(stages):
    """Train loss of each epoch, then validation and test loss.

    CPUs differ in last bits only, and at this learning rate they stay last bits (1e-7); at the
    toy's own 0.1 they would grow to a percent. After a change that moves them on purpose, delete
    the file: this test writes it anew.
    """
    longer = {"recipe.epochs": 4, "recipe.optimizer.lr": 0.02}
    dense = stages.toy(longer)
    losses_now = {}
    for name, config in (("dense", dense), ("sparse", stages.child(dense, changes=longer))):
        (outcome,) = stages.train(config)
        lines = (stages.folder(config) / "metrics.jsonl").read_text().splitlines()
        losses_now[name] = [json.loads(line)["train_loss"] for line in lines]
        losses_now[name] += [outcome.result[split]["loss"] for split in ("val", "test")]
    if not GOLDEN.exists():
        GOLDEN.write_text(json.dumps(losses_now, indent=1) + "\n")
        pytest.fail(f"{GOLDEN} was missing and is written: look at it, and commit it")
    golden = json.loads(GOLDEN.read_text())
    assert losses_now.keys() == golden.keys()
    for name, losses in golden.items():
        assert losses_now[name] == pytest.approx(losses, rel=1e-5)

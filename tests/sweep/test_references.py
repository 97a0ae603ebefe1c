"""References such as `${recipe.epochs}` have the value of each cell."""

import pytest

from harness.errors import UserError
from harness.sweep.axes import PATHS
from harness.sweep.grid import make_grid
from harness.sweep.references import resolve

FIXED = {
    "dataset": {"name": "digits", "validation_size": 200},
    "model": {"family": "cifar_resnet", "depth": 8, "width": 0.5},
    "augment": {"policy": "randaug(n=2)", "magnitude": "none"},
    "recipe": {"epochs": 2, "batch_size": 32, "optimizer": {"lr": 0.1}},
    "compress": {"level_share": 0.5},
    "seed": 0,
}


def trials(fixed, **language):
    sections = {key: {**FIXED[key], **fixed.get(key, {})} for key in FIXED if key != "seed"}
    rest = {key: value for key, value in fixed.items() if key not in sections}
    return make_grid("test", {**FIXED, **sections, **rest, **language}).trials


@pytest.mark.parametrize(
    "language",
    [
        {"axes": {"epochs": [1, 4]}},
        {"axes": {"recipe.epochs": [1, 4]}},
        {"zip": [{"epochs": [1, 4], "lr": [0.1, 0.2]}]},
        {"also": [{"set": {"epochs": 1}}, {"set": {"recipe.epochs": 4}}]},
        {"also": [{"axes": {"epochs": [1]}}, {"zip": [{"epochs": [4]}]}]},
    ],
)
def test_a_reference_follows_what_moves_its_key(language):
    made = trials({"compress": {"level_epochs": "${recipe.epochs}"}}, **language)
    pairs = [(trial.config.recipe.epochs, trial.config.compress.level_epochs) for trial in made]
    assert pairs == [(1, 1), (4, 4)]


def test_references_are_resolved_in_each_cell_wherever_they_stand():
    made = trials(
        {
            "compress": {
                "level_epochs": "${recipe.epochs}",
                "dense_magnitude": "${augment.magnitude}",
                "rewind_epoch": "${.level_epochs}",
                "magnitude_schedule": ["${augment.magnitude}", 0.5],
                "options": {"a": "${seed}"},
            },
            "surplus": {"options": {"b": "${compress.options.a}"}},
            "teacher": {"candidates": "${compress.level_epochs}"},
        },
        axes={"epochs": [1, 4], "magnitude": [0.2, 0.3], "seed": [7, "${recipe.epochs}"]},
    )
    assert len(made) == 8
    for trial in made:
        config, epochs = trial.config, trial.config.recipe.epochs
        assert trial.cell["seed"] in (7, epochs)
        assert config.compress.level_epochs == config.compress.rewind_epoch == epochs
        assert config.teacher.candidates == epochs
        assert config.compress.dense_magnitude == config.augment.magnitude
        assert config.compress.magnitude_schedule == f"{config.augment.magnitude}, 0.5"
        assert config.compress.options.model_extra == {"a": config.seed}
        assert config.surplus.options.model_extra == {"b": config.seed}


def test_a_reference_in_set_and_in_an_axis_follows_the_cell():
    made = trials(
        {},
        axes={"epochs": [1, 4], "compress.level_epochs": ["${recipe.epochs}", 2]},
        also=[{"set": {"compress.level_epochs": "${recipe.epochs}"}, "axes": {"epochs": [8]}}],
    )
    pairs = [(trial.config.recipe.epochs, trial.config.compress.level_epochs) for trial in made]
    assert pairs == [(1, 1), (1, 2), (4, 4), (4, 2), (8, 8)]


@pytest.mark.parametrize("path", sorted(PATHS - {"dataset.name", "model.family", "seed"}))
def test_every_key_can_be_referred_to(path):
    """A reference to a key gets the text that an axis puts there, whatever the key."""
    section, _, rest = path.partition(".")
    config = {"seed": "${" + path + "}", section: {}}
    inner = config[section]
    for part in rest.split(".")[:-1]:
        inner = inner.setdefault(part, {})
    inner[rest.split(".")[-1]] = 5
    assert resolve(config, ["seed"]) == {"seed": 5}


@pytest.mark.parametrize(
    ("reference", "text"),
    [
        ("${recipe.epoch}", "compress.level_epochs: ${recipe.epoch} points at a key that"),
        ("${compress.level_epochs}", "compress.level_epochs: ${compress.level_epochs} refers to"),
        ("${recipe", "'${recipe' is not a reference"),
        ("${augment.policy}", "compress.level_epochs: should be a valid integer, not 'randaug"),
    ],
)
def test_a_wrong_reference_gets_a_sentence(reference, text):
    with pytest.raises(UserError, match="1 mistake") as caught:
        trials({"compress": {"level_epochs": reference}}, axes={"epochs": [1, 4]})
    assert text in str(caught.value)


def test_references_that_multiply_are_refused():
    config = {f"k{n}": [f"${{k{n + 1}}}"] * 2 for n in range(40)}
    with pytest.raises(UserError, match="write the value out"):
        resolve({**config, "k40": 1}, ["k0"])


def test_an_operational_key_cannot_refer_to_what_an_axis_changes():
    run = {"threads": "${recipe.epochs}"}
    assert trials({"run": run}, axes={"seed": [0, 1]})
    with pytest.raises(UserError, match=r"run: refers to a key that axes.epochs changes"):
        trials({"run": run}, axes={"epochs": [1, 4]})

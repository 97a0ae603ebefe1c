"""Sizes and lengths of training: A1 compares sizes at equal length, L lengths of equal size."""

import math
import random

import pandas as pd
import pytest
from simulated import SPARSITIES, WIDTHS, sweep, verdict

from analysis import checks, figure_text, table
from analysis.best import best_per_size
from analysis.claims import claims
from analysis.figures import figures
from harness.errors import UserError

EPOCHS = (10, 20, 40, 80)
ARMS = [{"width": width, "epochs": epochs} for width in (1.0, 4.0) for epochs in EPOCHS]
LENGTHS = ARMS[:4]  # of one width


def rising(by_width, by_length, depth=0.02):
    """The optimum rises with the width, with the length, or with both."""

    def curve(number, magnitude):
        width, length = divmod(number, len(EPOCHS))
        top = 0.2 + by_width * width + by_length * length
        return 0.9 - depth * ((magnitude - top) / 0.4) ** 2

    return curve


def verdicts(frame, **more):
    return {
        result.claim: result.verdict for result in claims(frame, names=["A1", "L"], **more)
    }  # one for each: nothing divides the rows into groups


@pytest.mark.parametrize(
    ("by_width", "by_length", "expected"),
    [
        (0.0, 0.1, {"A1": "undecided", "L": "supported"}),
        (0.3, 0.0, {"A1": "supported", "L": "undecided"}),
        (-0.3, 0.1, {"A1": "contradicted", "L": "supported"}),
    ],
)
def test_sizes_are_compared_at_equal_length_and_lengths_at_equal_size(
    by_width, by_length, expected
):
    first = 0.3 if by_width < 0 else 0.0
    curve = rising(by_width, by_length)
    frame = sweep(random.Random(1), lambda n, m: curve(n, m - first), ARMS)
    assert verdicts(frame) == expected
    assert verdicts(frame, by=["epochs", "width"]) == expected  # whatever the order of the columns


def test_longer_trainings_of_larger_sizes_alone_are_no_drift_over_lengths():
    """Only one pair of sizes has a common length: what its other lengths add must not count."""
    arms = [{"width": 1.0, "epochs": 10}, {"width": 1.0, "epochs": 20},
            {"width": 4.0, "epochs": 20}, {"width": 4.0, "epochs": 80}]  # fmt: skip
    tops = (0.2, 0.4, 0.4, 0.6)
    frame = sweep(random.Random(1), lambda n, m: 0.9 - 0.02 * ((m - tops[n]) / 0.4) ** 2, arms)
    assert verdicts(frame) == {"A1": "undecided", "L": "supported"}
    assert "(2 sizes, 8 magnitudes)" in verdict(frame, "A1").compared
    assert "(4 lengths of 2 sizes, 8 magnitudes)" in verdict(frame, "L").compared
    follows = sweep(random.Random(1), rising(0.1, 0.0), WIDTHS)
    follows["epochs"] = 10 * follows["width"]
    assert "two lengths of a size" in verdict(follows, "L").compared


def test_what_cannot_be_tested_says_why():
    frame = sweep(random.Random(1), rising(0.0, 0.1), LENGTHS)
    assert "differ in epochs" in verdict(frame.assign(epochs=10), "L").compared
    assert "differ in epochs" in verdict(frame.drop(columns="epochs"), "L").compared
    few = frame[frame["magnitude"].isin([0.0, 0.5]) | (frame["epochs"] == 10)]
    assert "with 3 magnitudes that are done" in verdict(few, "L").compared
    one_seed = verdict(frame[frame["seed"] == 0], "L")
    assert one_seed.verdict == "undecided"
    assert "one seed" in one_seed.compared


def test_paths_to_a_sparsity_are_not_longer_trainings():
    """Each level adds epochs, and the optimum falls with the sparsity."""
    frame = sweep(random.Random(1), lambda n, m: 0.9 - 0.02 * ((m - 0.6 + 0.1 * n) / 0.4) ** 2,
                  SPARSITIES)  # fmt: skip
    frame["epochs"] = [10 + int(40 * sparsity) for sparsity in frame["sparsity"]]
    assert verdict(frame, "L").verdict == "not tested"
    assert verdict(frame, "A2").verdict == "supported"
    longer = sweep(random.Random(2), rising(0.0, 0.1), LENGTHS)
    both = pd.concat([frame, longer[longer["epochs"] > 10]], ignore_index=True).assign(trial=None)
    assert verdict(both, "L").trials == 4 * 8 * 3  # the dense trainings of all lengths


def test_what_follows_the_length_is_named():
    frame = sweep(random.Random(1), rising(0.0, 0.1), LENGTHS)
    frame["lr"] = frame["epochs"] / 100
    line = verdict(frame, "L")
    assert line.verdict == "supported"
    assert line.compared.endswith("lengths also differ in learning rate")


def test_a_table_for_each_length_and_a_figure_with_a_line_for_each_size():
    frame = checks.check(sweep(random.Random(1), rising(0.0, 0.1), ARMS), "planted")
    one = frame[frame["width"] == 1]
    by_length = best_per_size(one, ["epochs"])
    assert [result.size for result in by_length] == [{"epochs": epochs} for epochs in EPOCHS]
    assert table.best_table(by_length, []).header.count("epochs") == 1
    results = best_per_size(frame, ["width", "epochs"])
    assert [tuple(result.size.values()) for result in results] == [
        tuple(arm.values()) for arm in ARMS
    ]
    assert results == best_per_size(frame)  # the default
    with pytest.raises(UserError, match="they differ in width: add it to by="):
        best_per_size(frame, ["epochs"])
    drawn = figures(frame, results)
    axes = drawn["optimum_against_epochs"].axes[0]
    ticks = [text.get_text() for text in axes.get_xticklabels()]
    assert ticks == [str(epochs) for epochs in EPOCHS]
    lines = [line for line in axes.lines if len(line.get_xdata()) == len(EPOCHS)]
    assert len(lines) == 2
    for line in lines:
        assert list(line.get_ydata()) == sorted(line.get_ydata())  # optima rise
        assert all(
            math.isclose(x, epochs, rel_tol=0.2)
            for x, epochs in zip(line.get_xdata(), EPOCHS, strict=True)
        )
    assert (
        "length of training"
        in figure_text.captions(frame, results, drawn)["optimum_against_epochs"]
    )
    assert "optimum_against_epochs" not in figures(one, best_per_size(one[one["epochs"] == 10]))

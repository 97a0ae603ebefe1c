"""The best magnitude for each target, and claim R, on rows whose best magnitudes are planted."""

import random

import pytest

from analysis import rows_file, table
from analysis.claims import CLAIMS, claims, claims_table
from analysis.columns import METRICS
from analysis.targets import targets_table
from harness.errors import UserError

MAGNITUDES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)


def peak(at, top):
    return tuple(top - 0.5 * (magnitude - at) ** 2 for magnitude in MAGNITUDES)


@pytest.fixture
def evaluated(planted):
    """(corrupted optima, seed) -> rows whose clean accuracy is best at 0.3, in two widths."""

    def make(corrupted, seed=0, spread=0.002):
        curves = {1.0: peak(0.3, 0.8), 2.0: peak(0.3, 0.85)}
        frame = planted(curves, seeds=3, spread=spread, seed=seed, magnitudes=MAGNITUDES)
        chance = random.Random(seed + 1)
        for metric, top, optima in (
            ("corrupted", 0.5, corrupted),
            ("worst_class", 0.6, (0.1, 0.1)),
        ):
            at = dict(zip((1.0, 2.0), optima, strict=True))
            means = [
                peak(at[width], top)[MAGNITUDES.index(magnitude)]
                for width, magnitude in zip(frame["width"], frame["magnitude"], strict=True)
            ]
            for side in ("val", "test"):
                frame[f"{side}_{metric}"] = [mean + chance.gauss(0, spread) for mean in means]
        return frame

    return make


def test_the_table_has_the_planted_best_of_each_target(evaluated):
    made = targets_table(evaluated((0.5, 0.6)), None, []).frame()
    assert made["best_top1"].tolist() == [0.3, 0.3]
    assert made["best_corrupted"].tolist() == [0.5, 0.6]
    assert made["best_worst_class"].tolist() == [0.1, 0.1]
    assert made["test_corrupted"].tolist() == pytest.approx([50, 50], abs=0.5)


def test_each_target_is_chosen_on_its_own_validation_images(evaluated):
    frame = evaluated((0.5, 0.6))
    frame["test_corrupted"] = 0.1
    frame["val_top1"] = frame["val_corrupted"]
    made = targets_table(frame, None, []).frame()
    assert made["best_top1"].tolist() == made["best_corrupted"].tolist() == [0.5, 0.6]


def test_targets_without_results_are_named(evaluated, planted):
    frame = evaluated((0.5, 0.6))
    frame.loc[0, "val_corrupted"] = None
    made = targets_table(frame, None, [])
    assert "best, corrupted" not in made.header
    assert any("Corrupted: not known of 1 result: python -m harness.evaluate" in note
               for note in made.notes)  # fmt: skip
    assert targets_table(planted(), None, []).header == ("width", "best, clean", "test, clean")


@pytest.mark.parametrize("form", ["screen", "latex", "markdown", "csv", "html"])
def test_every_format_shows_it(evaluated, tmp_path, capsys, form):
    rows_file.write(evaluated((0.5, 0.6)), tmp_path)
    words = [f"rows={tmp_path / 'rows.csv'}", "targets=true", f"format={form}"]
    assert table.main(words) == 0
    assert "corrupted" in capsys.readouterr().out
    with pytest.raises(UserError, match="targets=true shows every target"):
        table.main([*words, "metric=loss"])


def verdict_of(frame, **options):
    (result,) = claims(frame, names=["R"], **options)
    return result


def test_a_higher_best_magnitude_on_corrupted_images_is_found(evaluated):
    result = verdict_of(evaluated((0.5, 0.5)))
    assert result.verdict == "supported"
    assert result.estimate.effect == pytest.approx(0.2, abs=0.05)
    assert "2 sizes, 8 magnitudes" in result.compared
    # it compares corrupted with clean images, whatever metric the others are tested by
    assert verdict_of(evaluated((0.5, 0.5)), metric=METRICS["corrupted"]) == result


def test_a_lower_one_contradicts_and_an_equal_one_does_neither(evaluated):
    assert verdict_of(evaluated((0.1, 0.1))).verdict == "contradicted"
    assert verdict_of(evaluated((0.3, 0.3))).verdict == "undecided"


def test_more_sizes_do_not_make_it_more_certain_than_one(evaluated):
    frame = evaluated((0.35, 0.35), spread=0.004)
    alone = verdict_of(frame[frame["width"] == 1.0])
    assert verdict_of(frame).p > alone.p / 4


def test_without_evaluations_the_claim_is_left_out_and_says_why_if_it_is_named(planted):
    assert {result.claim for result in claims(planted())} == set(CLAIMS) - {"R"}
    result = verdict_of(planted())
    assert result.verdict == "not tested"
    assert "no result is evaluated on corrupted images" in result.compared


def test_results_that_are_not_evaluated_take_no_part(evaluated):
    frame = evaluated((0.5, 0.5))
    missing = frame["seed"] == 2
    frame.loc[missing, ["val_corrupted", "test_corrupted"]] = None
    result = verdict_of(frame)
    assert result.verdict == "supported"
    assert result.effect.seeds == 2
    made = claims_table([result], [])
    assert any(note.startswith("R: how far the best magnitude") for note in made.notes)

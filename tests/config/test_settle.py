"""The rule `settle` of a grid file: what is refused, before anything is written."""

import pytest

from harness.cluster.settlement import decision_name
from harness.commands import launch
from harness.config import load
from harness.errors import UserError
from harness.sweep.plan import make_plan

GRID = """defaults: [{override /dataset: digits}, {override /recipe: quick}]
model: {family: cifar_resnet, depth: 8}
recipe: {epochs: 1, batch_size: 16}
run: {engine: ddp}
"""
AXES = "axes: {width: [0.25, 0.5], magnitude: [none, 0.5, 1], seed: [0, 1, 2]}\n"
RULE = "settle: {within: 0.3, seeds: [2, 3]}\n"


@pytest.fixture
def written(tmp_path):
    """(text) -> the words that name a grid file, and a store that does not exist."""

    def written(text):
        grid = tmp_path / "grid.yaml"
        grid.write_text(GRID + text)
        return [f"grid={grid}", f"store={tmp_path / 'store'}"]

    return written


def test_a_rule_is_read_and_can_be_changed_or_left_out_on_the_command_line(written):
    words = written(AXES + RULE)
    assert load(words).settle.model_dump() == {"within": 0.3, "seeds": (2, 3)}
    assert load([*words, "settle.within=1"]).settle.within == 1.0
    assert load([*words, "settle=false"]).settle is None
    assert load(written(AXES)).settle is None
    added = load([*written(AXES), "settle={within: 0.5, seeds: [1, 2]}"])
    assert added.settle.seeds == (1, 2)


def test_the_metric_of_a_rule_is_read_and_top1_changes_nothing(written):
    words = written(AXES + RULE)
    assert load(words).settle.metric == "top1"
    worst = load([*words, "settle.metric=worst_class"])
    assert worst.settle.metric == "worst_class"
    corrupted = load([*words, "settle.metric=corrupted", "evaluate=[corruptions]"])
    assert corrupted.settle.metric == "corrupted"
    names = [decision_name(launch, make_plan(launch.grid)) for launch in (load(words), worst)]
    assert len(set(names)) == 2  # decisions on different metrics are different jobs


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        ("metric: corruptet", "settle.metric: must be one of .*did you mean 'corrupted'"),
        ("metric: corrupted", r"settle.metric: corrupted needs .* evaluate: \[corruptions\]"),
    ],
)
def test_a_metric_that_results_will_not_have_is_refused(written, rule, sentence):
    with pytest.raises(UserError, match=sentence):
        load(written(AXES + RULE.replace("}", f", {rule}}}")))


AXIS_ONLY = "axes: {width: [0.25, 0.5]}\n"
ZIPPED = "axes: {seed: [0, 1, 2]}\nzip: [{magnitude: [none, 0.5], lr: [0.1, 0.2]}]\n"
ALSO = AXES + "also: [{set: {compress.dense_long: 0.5}, axes: {magnitude: [none]}}]\n"


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        (AXES + "settle: true\n", ["settle: must be a rule such as {within: 0.3, seeds: [2, 10]}"]),
        (
            AXES + "settle: {within: small, seeds: [3, 2]}\n",
            [
                "settle.within: must be the points of accuracy that make no difference",
                "settle.seeds: the first 3 seeds are more than the most, 2: write [2, 3]",
            ],
        ),
        (
            AXES + "settle: {within: 0.003, seeds: [2, 3]}\n",
            ["settle.within: 0.003 points cannot be measured", "write 0.3"],
        ),
        (AXES + "settle: {within: 100, seeds: [2, 3]}\n", ["above 0 and below 100"]),
        (
            AXES + "settle: {withn: 0.3, seeds: 2}\n",
            [
                "settle.withn: no such key 'withn' (did you mean 'within'?)",
                "settle.within: must be the points of accuracy",
                "settle.seeds: must be two whole numbers",
            ],
        ),
        (AXES + "settle: {within: 0.3, seeds: [0, 3]}\n", ["settle.seeds: must be two whole"]),
        (
            AXES + "settle: {within: 0.3, seeds: [2, 10]}\n",
            ["settle.seeds: up to 10 seeds of a magnitude, and axes.seed has 3", "write [2, 3]"],
        ),
        (
            AXIS_ONLY + RULE,
            [
                "settle: chooses among values of the axis magnitude, which this grid does not have",
                "settle: chooses among values of the axis seed, which this grid does not have: add "
                "axes.seed=[0, 1, 2]",
            ],
        ),
        (
            "axes: {magnitude: [0.5], seed: [0, 1, 2]}\n" + RULE,
            ["settle: chooses among magnitudes, and axes.magnitude has one value"],
        ),
        (
            ZIPPED + RULE,
            ["zip[0]: moves magnitude together with lr, and settle chooses it by itself"],
        ),
        (
            ALSO + RULE,
            [
                "also[0].set.compress.dense_long: settle tells sizes apart by their axes only",
                "axes: {compress.dense_long: [0.5]}",
            ],
        ),
        (
            AXES + "recipes: {}\nsettle: {within: x, seeds: [2, 3]}\n",
            ["recipes: no such key 'recipes' (did you mean 'recipe'?)", "settle.within: must be"],
        ),
    ],
)
def test_a_wrong_rule_is_refused_by_name_before_anything_is_written(
    written, tmp_path, text, sentences
):
    words = written(text)
    for dry_run in ("true", "false"):
        with pytest.raises(UserError) as caught:
            launch.main([*words, f"dry_run={dry_run}"])
        for sentence in sentences:
            assert sentence in str(caught.value)
    assert not (tmp_path / "store").exists()


def test_a_selector_has_to_select_whole_sizes(written, tmp_path):
    words = [*written(AXES + RULE), "dry_run=true"]
    for where, names in (
        ("magnitude == none", "magnitude"),
        ("augment.magnitude == none and width < 1", "augment.magnitude"),
        ("seed == 0 or state == 'failed'", "seed and state"),
    ):
        with pytest.raises(UserError, match=f"selects by {names}, but settle itself chooses"):
            launch.main([*words, f"where={where}"])
    assert launch.main([*words, "where=seed == 0", "settle=false"]) == 0
    assert launch.main([*words, "where=width == 0.25"]) == 0
    assert not (tmp_path / "store").exists()

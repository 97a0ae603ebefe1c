"""Policies: their text, the ops, signs and magnitudes that they draw, and tables of users."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from harness.augment import spaces
from harness.augment.executors import apply
from harness.augment.ops import CODES, OPS
from harness.augment.policy import parse_policy, with_magnitude
from harness.augment.spaces import SPACES, find_space
from harness.errors import UserError

IDS = np.arange(14_000)
NAMED = [name for name in SPACES if name != "none"]
GRID = np.linspace(0.0, 1.0, 11)


# --- text -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "none",
        "randaug(n=2, m=0.3)",
        "randaug(n=1, m=0)",
        "randaug_strict(n=3, m=1, spread=uniform)",
        "randaug(n=2, m=0.1, spread=0.25, fill=124/116/104, interpolation=bilinear)",
        "trivial_wide(n=1, m=0.5, spread=fixed)",
        "autoaugment_imagenet(m=0.3333333333333333)",
    ],
)
def test_text_round_trips(text):
    assert str(parse_policy(text)) == text
    assert parse_policy(str(parse_policy(text))) == parse_policy(text)


def test_equal_policies_have_one_text():
    assert str(parse_policy(" randaug( m = 0.30,n=2 ,fill=0) ")) == "randaug(n=2, m=0.3)"
    assert str(parse_policy("randaug(m=1.0)")) == "randaug(n=2, m=1)"
    assert str(parse_policy("trivial_wide(m=-0.0)")) == "trivial_wide(n=1, m=0, spread=uniform)"


def test_with_magnitude():
    assert with_magnitude("randaug(n=2)", 0.3) == "randaug(n=2, m=0.3)"
    assert with_magnitude("randaug", 1) == "randaug(n=2, m=1)"
    assert with_magnitude("randaug(n=2)", "none") == "none"
    assert with_magnitude("none", "none") == "none"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("randug(n=2, m=0.3)", "did you mean 'randaug'"),
        ("randaug(n=2)", "no magnitude"),
        ("randaug(n=2, m=1.1)", "from 0 to 1"),
        ("randaug(n=2, m=-0.1)", "from 0 to 1"),
        ("randaug(n=2, m=nan)", "from 0 to 1"),
        ("randaug(n=2, m=strong)", "from 0 to 1"),
        ("randaug(n=0, m=0.3)", "from 1 to 16"),
        ("randaug(n=1.5, m=0.3)", "from 1 to 16"),
        ("randaug(n=2, m=0.3, m=0.4)", "'m' is given twice: remove one"),
        ("randaug(2, m=0.3)", "is not an argument name=value"),
        ("randaug(n=2,, m=0.3)", "is not an argument name=value"),
        ("randaug(n=2, m=0.3, spred=uniform)", "did you mean 'spread'"),
        ("randaug(n=2, m=0.3, spread=2)", "standard deviation"),
        ("randaug(n=2, m=0.3, fill=300)", "grey value"),
        ("randaug(n=2, m=0.3, fill=1/2)", "grey value"),
        ("randaug(n=2, m=0.3, interpolation=cubic)", "nearest"),
        ("autoaugment_imagenet(n=2, m=0.3)", "does not take 'n'"),
        ("none(m=0.3)", "does not take 'm'"),
        ("randaug(n=2, m=0.3", "not a policy"),
        ("", "not a policy"),
        ("__import__('os')", "unknown augmentation space"),
        ("absent.yaml(m=0.3)", "absent.yaml"),
        ("../../etc/passwd(m=0.3)", "ending in .yaml"),
        ("my spaces/mine.yaml(m=0.3)", "neither blanks nor"),
        ("spaces (old)/mine.yaml(m=0.3)", "neither blanks nor"),
        ("zero\0byte.yaml(m=0.3)", "null byte"),
        ("~nobody-has-this-name/x.yaml(m=0.3)", "no such user"),
        pytest.param("randaug(n=" + "9" * 5000 + ", m=0.3)", "from 1 to 16", id="huge n"),
        pytest.param("randaug(m=0.3, fill=" + "9" * 5000 + ")", "grey value", id="huge fill"),
        pytest.param("randaug" + " " * 50_000 + "x", "not a policy", id="blanks"),
    ],
)
def test_a_wrong_text_gets_a_sentence(text, word):
    with pytest.raises(UserError, match=word.replace("(", r"\(")):
        parse_policy(text)


@pytest.mark.parametrize(
    ("text", "magnitude", "word"),
    [
        ("randaug(n=2, m=0.3)", 0.3, "already has a magnitude"),
        ("randaug(n=2)", 1.5, "from 0 to 1"),
        ("none", 0.3, "set augment.magnitude to none"),
        ("randug(n=2)", "none", "did you mean 'randaug'"),
    ],
)
def test_a_wrong_magnitude_gets_a_sentence(text, magnitude, word):
    with pytest.raises(UserError, match=word):
        with_magnitude(text, magnitude)


# --- draws ------------------------------------------------------------------------------------


def test_ops_are_drawn_evenly_in_each_layer_and_independently():
    plan = parse_policy("randaug(n=2, m=0.5)").draw(0, 0, IDS)
    counts = [np.bincount(layer, minlength=len(OPS)) for layer in plan.ops]
    is_drawn = counts[0] > 0
    assert is_drawn.sum() == len(SPACES["randaug"].rows) == 14
    for layer in counts:
        assert stats.chisquare(layer[is_drawn]).pvalue > 0.01
    codes = plan.ops.astype(int)
    for first, second in ((codes[0], codes[1]), (codes[0][:-1], codes[0][1:])):
        pairs = np.zeros((len(OPS), len(OPS)))
        np.add.at(pairs, (first, second), 1)
        assert stats.chi2_contingency(pairs[is_drawn][:, is_drawn]).pvalue > 0.01


def test_signs_balance():
    plan = parse_policy("randaug(n=1, m=0.5)").draw(1, 0, IDS)
    for row in SPACES["randaug"].rows:
        if row.signed:
            values = plan.values[plan.ops == CODES[row.op]] - row.values[0]
            assert stats.binomtest(int((values > 0).sum()), len(values)).pvalue > 0.01
            assert len(np.unique(values)) == 2


def _rotations(text: str) -> np.ndarray:
    """Return the angles that a policy draws, as shares of 30 degrees: the drawn magnitudes."""
    plan = parse_policy(text).draw(0, 0, IDS)
    return np.abs(plan.values[plan.ops == CODES["Rotate"]]) / 30.0


def test_spread_is_the_distribution_of_the_drawn_magnitudes():
    assert np.allclose(_rotations("randaug(n=2, m=0.4)"), 0.4)
    uniform = _rotations("randaug(n=2, m=0.4, spread=uniform)")
    assert stats.kstest(uniform, stats.uniform(0, 0.4).cdf).pvalue > 1e-3
    normal = _rotations("randaug(n=2, m=0.5, spread=0.1)")
    assert stats.kstest(normal, stats.norm(0.5, 0.1).cdf).pvalue > 1e-3
    clipped = _rotations("randaug(n=2, m=0.9, spread=0.5)")
    assert clipped.max() == 1.0
    assert clipped.min() == 0.0
    assert abs((clipped == 1.0).mean() - stats.norm.sf(0.2)) < 0.03


def test_each_op_of_half_probability_is_left_out_half_of_the_time():
    plan = parse_policy("randaug_timm_inc(n=2, m=0.5)").draw(0, 0, IDS)
    for layer in plan.ops:
        skipped = int((layer == CODES["Identity"]).sum())
        assert stats.binomtest(skipped, len(layer)).pvalue > 0.01


def test_sub_policies_of_autoaugment_are_drawn_whole_and_evenly():
    steps = SPACES["autoaugment_cifar10"].chains
    plan = parse_policy("autoaugment_cifar10(m=1)").draw(0, 0, IDS)
    names, identity = list(OPS), CODES["Identity"]
    pairs = {(names[a], names[b]) for a, b in plan.ops.T if identity not in (a, b)}
    assert pairs == {(first.op, second.op) for first, second in steps if first.p and second.p}
    expected = {}
    for first, second in steps:
        for step, layer in ((first, 0), (second, 1)):
            key = (layer, step.op)
            expected[key] = expected.get(key, 0.0) + step.p / len(steps)
    for (layer, op), share in expected.items():
        count = int((plan.ops[layer] == CODES[op]).sum())
        assert stats.binomtest(count, len(IDS), share).pvalue > 1e-3


def test_256_identical_images_are_augmented_differently(pictures, by_pillow):
    images = pictures(32, 32)[2:3].repeat(256, 1, 1, 1)
    plan = parse_policy("randaug(n=2, m=0.5)").draw(0, 0, IDS[:256])
    result = apply(images, plan)
    ours, pillows = (
        len({image.numpy().tobytes() for image in batch})
        for batch in (result, by_pillow(images, plan))
    )
    assert ours == pillows
    assert ours > 140  # there are 23 x 23 pairs of op and sign, but many of them commute


def test_a_draw_depends_only_on_seed_epoch_and_id():
    policy = parse_policy("uniform(n=2, m=0.5)")
    whole = policy.draw(3, 4, IDS[:50])
    order = np.random.default_rng(0).permutation(50)
    shuffled = policy.draw(3, 4, IDS[:50][order])
    for attribute in ("ops", "values", "boxes"):
        assert np.array_equal(getattr(shuffled, attribute), getattr(whole, attribute)[:, order])
    for other in (policy.draw(2, 4, IDS[:50]), policy.draw(3, 5, IDS[:50])):
        assert (other.ops != whole.ops).mean() > 0.5


def test_ops_and_signs_do_not_depend_on_the_magnitude():
    weak, strong = (parse_policy(f"randaug(n=2, m={m})").draw(0, 0, IDS) for m in (0.1, 0.9))
    assert np.array_equal(weak.ops, strong.ops)
    signed = weak.ops == CODES["Rotate"]
    assert np.array_equal(np.sign(weak.values[signed]), np.sign(strong.values[signed]))


def test_the_first_layers_do_not_depend_on_the_number_of_layers():
    two, three = (parse_policy(f"randaug(n={n}, m=0.5)").draw(0, 0, IDS) for n in (2, 3))
    assert np.array_equal(three.ops[:2], two.ops)


# --- tables of users --------------------------------------------------------------------------

TABLE = """
source: calibrated on our validation set
n: 1
fill: 128
ops:
  Identity:
  Rotate: {values: [0, 10, 40], signed: true}
  Posterize: {values: [8, 2]}
  Equalize: {values: [0, 1]}
  TranslateXRel: {values: [0, 0.5], signed: true}
"""


def test_a_space_is_one_yaml_or_json_table(tmp_path, pictures, by_pillow):
    import yaml

    path = tmp_path / "mine.yaml"
    path.write_text(TABLE)
    policy = parse_policy(with_magnitude(f"{path}", 0.5))
    assert (policy.n, policy.fill, policy.space.source.split()[0]) == (1, (128,) * 3, "calibrated")
    images = pictures(32, 32).repeat(20, 1, 1, 1)
    plan = policy.draw(0, 0, IDS[: len(images)])
    assert torch.equal(apply(images, plan), by_pillow(images, plan))
    rotations = np.unique(np.abs(plan.values[plan.ops == CODES["Rotate"]]))
    assert rotations.tolist() == [10.0]  # the second of three values is for m = 0.5
    same = tmp_path / "mine.json"
    same.write_text(json.dumps(yaml.safe_load(TABLE)))
    other = parse_policy(f"{same}(m=0.5)").draw(0, 0, IDS[: len(images)])
    assert np.array_equal(other.values, plan.values)


def test_a_changed_table_is_another_policy_and_the_old_text_is_refused(tmp_path, monkeypatch):
    monkeypatch.delenv("HARNESS_TABLES", raising=False)  # it names tables of other tests
    path = tmp_path / "mine.yaml"
    path.write_text(TABLE)
    before = str(parse_policy(f"{path}(m=0.5)"))
    assert before.startswith("mine.yaml@")
    assert str(parse_policy(before)) == before
    # Another value; and the same rows in another order, because a draw is a position in the table.
    for other in (TABLE.replace("40", "50"), TABLE.replace("  Identity:\n", "") + "  Identity:\n"):
        path.write_text(other)
        assert str(parse_policy(f"{path}(m=0.5)")) != before
        with pytest.raises(UserError, match="has changed"):
            parse_policy(before)


def test_an_edited_table_is_read_again_by_the_same_process(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(TABLE)
    before = with_magnitude(str(path), 0.5)
    path.write_text(TABLE.replace("40", "50"))
    after = with_magnitude(str(path), 0.5)
    assert str(parse_policy(after)) == after != before


def test_a_shipped_table_with_the_name_of_a_built_in_space_is_refused(tmp_path, monkeypatch):
    (tmp_path / "randaug.yaml").write_text(TABLE)
    monkeypatch.setattr(spaces, "TABLES", tmp_path)
    with pytest.raises(UserError, match="built in: give it another"):
        parse_policy("randaug(m=0.3)")


def test_a_table_may_set_the_defaults_of_a_policy(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(TABLE.replace("n: 1", "n: 3\np: 0.25\nspread: 0.1"))
    text = with_magnitude(str(path), 0.5)
    assert text.endswith("(n=3, m=0.5, spread=0.1)")
    assert str(parse_policy(text)) == text
    plan = parse_policy(text).draw(0, 0, IDS)
    share = (plan.ops != CODES["Identity"]).mean() / (4 / 5)  # one of the five ops is Identity
    assert abs(share - 0.25) < 0.01
    rotations = np.abs(plan.values[plan.ops == CODES["Rotate"]])
    assert len(np.unique(rotations)) > 100


def test_json_and_yaml_read_the_same_numbers(tmp_path):
    row = '{"ops": {"Rotate": {"values": [0, 1e-3]}}}'
    for suffix in ("json", "yaml"):
        (tmp_path / f"mine.{suffix}").write_text(row)
        assert find_space(f"{tmp_path}/mine.{suffix}").rows[0].values == (0.0, 0.001)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ('{"n": 1, "n": 2}', "'n' twice"),
        ('{"n": 1,', "is not plain YAML"),
        ("[" * 60_000, "nested"),
        ("ops:", "has a row per op"),
    ],
    ids=lambda word: word[:10],
)
def test_a_wrong_json_table_gets_a_sentence(tmp_path, content, word):
    path = tmp_path / "mine.json"
    path.write_text(content)
    with pytest.raises(UserError, match=word):
        find_space(str(path))


@pytest.mark.parametrize("m", [2.0, -0.1, float("nan")])
def test_a_policy_refuses_a_magnitude_out_of_range(m):
    with pytest.raises(UserError, match="from 0 to 1"):
        replace(parse_policy("randaug(n=2, m=0.3)"), m=m)


def test_a_table_may_lie_in_any_folder(tmp_path):
    folder = tmp_path / "me@site"
    folder.mkdir()
    (folder / "mine.yaml").write_text(TABLE)
    text = str(parse_policy(f"{folder}/mine.yaml(m=0.5)"))
    assert str(parse_policy(text)) == text


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ("Rotate:", "Rotation:", "did you mean 'Rotate'"),
        ("signed: true", "sined: true", "did you mean 'signed'"),
        ("[0, 10, 40]", "[0, 40, 10]", "strength must grow"),
        ("[0, 10, 40]", "[40, 0]", "strength must grow"),
        ("[0, 10, 40], signed: true", "[-30, 30]", "to one side"),
        ("[0, 10, 40]", "[5, 10]", "begin at 0"),
        ("[0, 10, 40]", "[0]", "two or more"),
        ("[0, 10, 40]", "[0, fast]", "not a number"),
        ("[8, 2]", "[8, 0]", "from 1 to 8"),
        ("[8, 2]", "[8, 2], rounding: none", "rounding"),
        ("[0, 0.5]", "[0, 1.5]", "from -1 to 1"),
        ("Identity:", "Cutout: {values: [0, 1]}", "CutoutRel"),
        ("n: 1", "n: 0", "from 1 to 16"),
        ("n: 1", "n: 1000000", "from 1 to 16"),
        ("n: 1", "n: 1\nn: 2", "'n' twice"),
        ("Identity:", "Rotate: {values: [0, 1]}", "'Rotate' twice"),
        ("[0, 10, 40]", "[0, 1" + "0" * 400 + "]", "degrees"),
        ("[0, 10, 40]", "[0, " + "1" * 5000 + "]", "not plain YAML"),
        ("[0, 10, 40]", "[0, .inf]", "degrees"),
        ("fill: 128", "fill: null", "from 0 to 255"),
        ("fill: 128", "fill: [true, 1, 2]", "from 0 to 255"),
        ("fill: 128", "source: " + "[" * 5000, "nested"),
        ("fill: 128", "source: " + "x" * 70_000, "too long"),
        ("n: 1", "p: 2", "probability"),
        ("n: 1", "spread: wide", "fixed, uniform or"),
        ("fill: 128", "fill: 300", "from 0 to 255"),
        ("fill: 128", "fil: 128", "did you mean 'fill'"),
        ("fill: 128", "2020-01-01: 128", "as a date"),
        ("source: calibrated on our validation set", "source: {2020-01-01: a}", "as a date"),
        ("n: 1", "spread: 1.5", "standard deviation"),
        ("ops:", "op:", "key `ops`"),
        ("n: 1", "n: [", "not plain YAML"),
        ("n: 1", "n: &a 1\np: *a", "aliases"),
        ("n: 1", "n: !!python/object/apply:os.getcwd []", "YAML tag"),
    ],
    ids=lambda word: word[:30],
)
def test_a_wrong_table_gets_a_sentence(tmp_path, old, new, word):
    path = tmp_path / "mine.yaml"
    path.write_text(TABLE.replace(old, new, 1))
    with pytest.raises(UserError, match=word) as caught:
        find_space(str(path))
    assert str(path) in str(caught.value)

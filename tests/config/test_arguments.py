"""How commands read their `key=value` arguments."""

import subprocess
import sys

import pytest

from harness.arguments import Option, parse_options, read_arguments, split_options
from harness.errors import UserError
from harness.paths import ROOT

OPTIONS = {
    "lines": Option(int, default=20, low=0, high=100, example="50"),
    "budget": Option(float, low=0, quantity="a number of device-hours", example="12.5"),
    "watch": Option(bool, default=False),
    "by": Option(list),
    "format": Option(default="screen", choices=("screen", "json")),
}


def test_values_have_their_types_and_defaults():
    args = ["lines=5", "budget=1e-1", "watch=True", "by=[width, depth]", "format=json"]
    assert parse_options(args, OPTIONS) == {
        "lines": 5, "budget": 0.1, "watch": True, "by": ["width", "depth"], "format": "json",
    }  # fmt: skip
    assert parse_options([], OPTIONS) == {
        "lines": 20, "budget": None, "watch": False, "by": None, "format": "screen",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arg", "sentence"),
    [
        ("wach=3", "there is no option 'wach' (did you mean 'watch'?)"),
        ("lines", "'lines' is not of the form key=value; --help shows the arguments"),
        ("=3", "'=3' is not of the form key=value; --help shows the arguments"),
        ("lines=", "lines has no value: write lines=VALUE (for example lines=50)"),
        ("by=[]", "by has no value: write by=VALUE"),
        ("lines=1.5", "lines=1.5 is not a whole number (for example lines=50)"),
        pytest.param(
            f"lines={'9' * 400}",
            f"lines={'9' * 400} is not a whole number (for example lines=50)",
            id="400 digits",
        ),
        ("budget=abc", "budget=abc is not a number of device-hours (for example budget=12.5)"),
        ("budget=nan", "budget=nan is not a number of device-hours (for example budget=12.5)"),
        ("budget=-1", "budget=-1 is out of range: 0 or more is valid"),
        ("lines=101", "lines=101 is out of range: 0 to 100 is valid"),
        ("watch=yes", "watch is true or false, not 'yes'"),
        ("format=jsn", "format=jsn is not a valid choice (did you mean 'json'?)"),
    ],
)
def test_a_mistake_is_a_sentence_that_names_what_is_valid(arg, sentence):
    with pytest.raises(UserError) as caught:
        parse_options([arg], OPTIONS)
    assert str(caught.value) == sentence


def test_all_mistakes_are_named_at_once():
    with pytest.raises(UserError) as caught:
        parse_options(["lines=x", "nonsense=1", "watch=2"], OPTIONS)
    assert len(str(caught.value).splitlines()) == 3


def test_an_argument_given_twice_is_named_with_both_values():
    with pytest.raises(UserError, match="lines is given twice, as lines=1 and lines=2"):
        parse_options(["lines=1", "lines=2"], OPTIONS)
    (sentence,) = read_arguments(["a.b=1", "++a.b=1"], OPTIONS).mistakes
    assert sentence == "a.b is given twice, as a.b=1 and ++a.b=1: keep one of them"


def test_a_required_option_that_is_missing_is_named():
    options = {"out": Option(required=True, example="out/report")}
    with pytest.raises(UserError, match="out is missing: add out=VALUE, for example out=out/rep"):
        parse_options([], options)


def test_other_arguments_are_kept_as_they_are():
    args = ["grid=a=b", "lines=1", "+recipe.epochs=3"]
    others, options = split_options(args, OPTIONS)
    assert others == ["grid=a=b", "+recipe.epochs=3"]
    assert options["lines"] == 1


@pytest.mark.parametrize(
    ("args", "repeated"),
    [
        (["store=a", "store=a"], True),
        (["a.b=1", "a={c: 2, b: 3}"], True),
        (["a={b: {c: 1}}", "a.b.d=2"], True),
        (['a={"b": 1}', "a.b=2"], True),
        (["a={b: 1}", "a.c=2"], False),
        (["model=cnn", "model.width=2"], False),
        (["ab=1", "a=2"], False),
    ],
)
def test_a_key_may_not_be_set_twice_in_any_spelling(args, repeated):
    assert len(read_arguments(args, {}).mistakes) == repeated


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("'/x y'", "/x y"),
        ('"/x y"', "/x y"),
        ("state == 'failed'", "state == 'failed'"),
        ("'a' == 'b'", "'a' == 'b'"),
        ("'", "'"),
    ],
)
def test_quotes_around_all_of_a_value_are_not_part_of_it(value, expected):
    assert parse_options([f"path={value}"], {"path": Option()}) == {"path": expected}


@pytest.mark.parametrize("value", ["a b,c", "'a b,c'", "'a b','c'", "['a b', \"c\"]"])
def test_items_of_a_list_may_have_quotes_too(value):
    assert parse_options([f"by={value}"], OPTIONS)["by"] == ["a b", "c"]


@pytest.mark.parametrize(
    ("args", "code", "shown", "silent"),
    [(["--help"], 0, 1, 2), (["grid=x", "-h"], 0, 1, 2), ([], 2, 2, 1)],
)
def test_help_and_no_arguments_show_the_usage(args, code, shown, silent):
    body = "from harness.errors import command\ncommand(lambda args: 1, 'the usage')"
    ended = subprocess.run(
        [sys.executable, "-S", "-c", body, *args],  # without the packages
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    streams = {1: ended.stdout, 2: ended.stderr}
    assert (ended.returncode, streams[shown], streams[silent]) == (code, "the usage\n", "")

"""`python -m harness.augment`, as a user runs it."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from harness.augment.spaces import SPACES

ROOT = Path(__file__).parents[2]
SHEETS = ROOT / "docs" / "sheets"


def run(*words, code=0):
    said = subprocess.run(
        [sys.executable, "-m", "harness.augment", *map(str, words)],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert said.returncode == code, said.stdout + said.stderr
    assert "Traceback" not in said.stderr
    return said.stdout + said.stderr


@pytest.mark.slow
@pytest.mark.parametrize("rows", ["ops", "samples"])
def test_it_draws_a_sheet(tmp_path, rows):
    out = tmp_path / "sheet.png"
    said = run("policy=randaug_strict(n=2)", "dataset=digits", f"out={out}", f"rows={rows}")
    assert str(out) in said
    picture = Image.open(out)
    assert picture.width > 400
    assert len(picture.convert("L").getcolors(1 << 16)) > 10  # not an empty page


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["polcy=randaug"], "did you mean 'policy'"),
        (["policy=randag"], "did you mean 'randaug'"),
        (["policy=randaug(m=0.3)"], "already has a magnitude"),
        (["rows=colums"], "valid: ops, samples"),
        (["out=sheet.txt"], "end it in .png"),
        (["dataset=digit", "out=x.png"], "did you mean 'digits'"),
        (["dataset=digits", "out=/no/such/folder/x.png"], "cannot write"),
    ],
)
def test_wrong_words_get_a_sentence(words, sentence):
    assert sentence in run(*words, code=2)


def test_there_is_a_small_sheet_of_every_shipped_space():
    for name in SPACES:
        if name != "none":
            path = SHEETS / f"{name}.png"
            assert path.stat().st_size < 200_000, path
            assert name in (ROOT / "docs" / "augment.md").read_text()

"""`python -m harness.augment`: two tests run the command, the others call its `main`."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.augment.__main__ import main
from harness.augment.spaces import SPACES, TABLES
from harness.data import write
from harness.errors import UserError

ROOT = Path(__file__).parents[2]
SHEETS = ROOT / "docs" / "sheets"


def run(*words, code=0):
    process = subprocess.run(
        [sys.executable, "-m", "harness.augment", *map(str, words)],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert process.returncode == code, process.stdout + process.stderr
    assert "Traceback" not in process.stderr
    return process.stdout + process.stderr


@pytest.mark.slow
@pytest.mark.parametrize("rows", ["ops", "samples"])
def test_it_draws_a_sheet(tmp_path, rows, capsys):
    out = tmp_path / "sheet.png"
    words = "policy=randaug_strict(n=2)", "dataset=digits", f"out={out}", f"rows={rows}"
    if rows == "ops":
        output = run(*words)
    else:
        assert main([*words]) == 0
        output = capsys.readouterr().out
    assert str(out) in output
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
        (["dataset=digits", "out=/no/such/folder/x.png"], "there is no folder /no/such/folder"),
        (["out=~nobody-here/x.png"], "this machine has no such user"),
        (["dataset=digits", "data_root=~nobody-here/x"], "this machine has no such user"),
    ],
)
def test_a_wrong_argument_gets_a_sentence(words, sentence):
    with pytest.raises(UserError, match=re.escape(sentence)):
        main(words)


def test_a_mistake_ends_the_command_with_its_sentence_alone():
    assert run("polcy=randaug", code=2).startswith("error: there is no option 'polcy'")


PHOTOS = """name: photos
images: folder
test: val
validation_size: 1
content:
  train_images: 5
  test_images: 1
  classes: 1
  resolution: 64
  mean: [0.5, 0.5, 0.5]
  std: [0.25, 0.25, 0.25]
"""


@pytest.fixture
def photos(tmp_path):
    """A data set of image files with 5 training images, and the folder of its tree."""
    (tmp_path / "photos.yaml").write_text(PHOTOS)
    for i in range(6):
        path = tmp_path / "tree" / "photos" / ("train" if i else "val") / "cat" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((50, 40), 90).save(path)
    return tmp_path / "tree"


def draw(file, root, out):
    assert main(["policy=randaug", f"dataset={file}", f"data_root={root}", f"out={out}",
                 "rows=samples"]) == 0  # fmt: skip
    with Image.open(out) as picture:
        return picture.size


def test_a_sheet_can_show_a_set_of_few_images(photos, tmp_path):
    # One of the five training images is cut off for validation.
    assert draw(tmp_path / "photos.yaml", photos, tmp_path / "sheet.png")[1] > 4 * 64


def test_a_sheet_can_show_a_written_set_of_any_split_and_size(photos, tmp_path):
    write.main([f"dataset={tmp_path / 'photos.yaml'}", f"source={photos / 'photos'}",
                f"out={tmp_path / 'photos'}",
                "validation_size=3", "split_seed=7", "max_resolution=45"])  # fmt: skip
    (width, height) = draw(tmp_path / "photos.yaml", tmp_path, tmp_path / "sheet.png")
    assert 2 * 45 < height < 4 * 64 + 60  # two rows of tiles
    assert width > 7 * 45  # seven tiles a row


def test_a_space_with_only_identity_is_refused(tmp_path):
    table = tmp_path / "id.yaml"
    table.write_text("ops: {Identity: }")
    with pytest.raises(UserError, match="no op to show"):
        main([f"policy={table}", "dataset=digits", "out=x.png"])


def test_there_is_a_small_sheet_of_every_shipped_space_and_each_is_linked():
    text = (ROOT / "docs" / "augment.md").read_text()
    shipped = {name for name in SPACES if name != "none"} | {p.stem for p in TABLES.glob("*.yaml")}
    sheets = {path.stem: path for path in SHEETS.glob("*.png")}
    assert sheets.keys() == shipped | {"samples"}
    for name, path in sheets.items():
        assert path.stat().st_size < 200_000, path
        assert f"(sheets/{name}.png)" in text
        assert name == "samples" or f"`{name}`" in text


@pytest.mark.slow
@pytest.mark.parametrize("name", ["trivial_wide", "fashion_mnist_calibrated"])
def test_a_sheet_shows_what_the_space_does_now(tmp_path, name):
    out = tmp_path / "sheet.png"
    assert main([f"policy={name}", "dataset=fashion_mnist", f"out={out}"]) == 0
    drawn, shipped = (
        np.asarray(Image.open(path).convert("RGB")) for path in (out, SHEETS / f"{name}.png")
    )
    tiles = np.s_[40:, 110:]  # without the labels, whose pixels depend on the font
    assert drawn.shape == shipped.shape
    assert np.array_equal(drawn[tiles], shipped[tiles])

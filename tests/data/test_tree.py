"""The images of a tree and their order, and the mistakes that a tree can have."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

from harness.data import tree_problems, write
from harness.data.dataset_file import read_dataset
from harness.data.datasets import load
from harness.data.tree import inspect_tree, scan_parts
from harness.errors import UserError

PHOTOS = Path(__file__).with_name("photos.yaml")
CONFIG = read_dataset(str(PHOTOS))


def picture(path: Path, size=(3, 2)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)
    return path


@pytest.fixture
def small(tmp_path):
    """A good tree with two classes of two images in each part."""
    for part in ("train", "val"):
        for name in ("cat", "dog"):
            for i in range(2):
                picture(tmp_path / part / name / f"{i}.png")
    return tmp_path


def test_the_order_is_torchvisions_for_any_names_of_folders(small):
    names = ("cat/a/1.png", "cat/a b/1.png", "cat/a-b/x/1.png", "cat/a.b/1.png", "cat/Z/1.png",
             "cat/a/c/1.png", "cat/a0/1.png", "cat/ b/1.png", "cat/é/1.png", "a b/1.png",
             "a/1.png", "a-b/1.png", "cat/10.png", "cat/9.png", "cat/a.png")  # fmt: skip
    for part in ("train", "val"):
        for name in names:
            picture(small / part / name)
    train, _ = scan_parts(small)
    expected = ImageFolder(small / "train")
    paths = [str(train.root / path) for path in train.paths]
    assert list(zip(paths, train.labels)) == expected.samples
    assert list(train.classes) == expected.classes


def test_hidden_files_and_folders_are_left_out_and_named(tree, tmp_path, capsys):
    root = tmp_path / "photos"
    shutil.copytree(tree / "photos", root)
    before = load(CONFIG, str(tree), "imagefolder")
    for name in ("train/.ipynb_checkpoints/a.png", "train/__MACOSX/cat/a.png", "val/.git/a.png",
                 "train/cat/._cat_00.JPEG", "train/cat/.ipynb_checkpoints/cat_00-checkpoint.png",
                 "train/cat/Thumbs.db", "train/.DS_Store", "val/lost+found/#1.png",
                 "train/dog/@eaDir/a.JPEG"):  # fmt: skip
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("not an image")
    after = load(CONFIG, str(tmp_path), "imagefolder")
    assert after.split_hash == before.split_hash
    assert after.train.images._paths == before.train.images._paths
    note = capsys.readouterr().err
    assert "7 hidden files or folders are left out" in note
    assert str(root / "train" / "cat" / "._cat_00.JPEG") in note
    assert tree_problems(root) == []


def link_folder_to_itself(root):
    (root / "train/cat/again").symlink_to(".")


def link_folder_to_its_class(root):
    (root / "train/cat/inner").mkdir()
    (root / "train/cat/inner/again").symlink_to("..")


def link_class_to_class(root):
    shutil.rmtree(root / "train/dog")
    (root / "train/dog").symlink_to("cat")


def link_folder_to_another_class(root):
    (root / "train/dog/more").symlink_to(root / "train/cat")


def link_test_set_to_training_set(root):
    shutil.rmtree(root / "val")
    (root / "val").symlink_to("train")


def link_test_class_to_training_class(root):
    shutil.rmtree(root / "val/cat")
    (root / "val/cat").symlink_to("../train/cat")


def link_image_to_image(root):
    (root / "train/dog/2.png").symlink_to("../cat/0.png")


def link_test_image_to_training_image(root):
    (root / "val/dog/2.png").symlink_to(root / "train/dog/0.png")


def link_two_images_to_one_outside(root):
    picture(root / "pool" / "x.png")
    for name in ("train/cat/2.png", "train/dog/2.png"):
        (root / name).symlink_to(root / "pool" / "x.png")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (link_folder_to_itself, "cat/again and .*cat are the same folder"),
        (link_folder_to_its_class, "are the same folder"),
        (link_class_to_class, "are the same folder"),
        (link_folder_to_another_class, "are the same folder"),
        (link_test_set_to_training_set, "are the same folder"),
        (link_test_class_to_training_class, "val/cat and .*train/cat are the same folder"),
        (link_image_to_image, "dog/2.png and .*cat/0.png are the same file"),
        (link_test_image_to_training_image, "val/dog/2.png and .*train/dog/0.png are the same"),
        (link_two_images_to_one_outside, "are the same file"),
        (lambda root: (root / "train/cat/2.png").symlink_to("gone.png"), "2.png is a link to not"),
        (lambda root: (root / "train/cat/a.jpg").symlink_to("a.jpg"), "a.jpg is a link to nothing"),
        (lambda root: (root / "train/cat/old").symlink_to("/gone"), "cat/old is a link to nothing"),
        (lambda root: (root / "train/newt").symlink_to("/gone"), "train/newt is a link to nothing"),
        (lambda root: os.mkfifo(root / "train/cat/2.png"), "2.png is not a file"),
        (lambda root: shutil.rmtree(root / "val/dog"), "different classes: dog is in only one"),
        (lambda root: shutil.rmtree(root / "val"), "no folder val: images lie in train/<class>/"),
        (lambda root: [shutil.rmtree(root / part) for part in ("train", "val")],
         "has no folder train and no folder val: images lie in"),
        (lambda root: [path.unlink() for path in (root / "val/dog").iterdir()],
         r"1 of the 2 class folders of .*val hold no image \(dog\)"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_tree_gets_one_sentence(small, change, words):
    assert tree_problems(small) == []
    change(small)
    with pytest.raises(UserError, match=words) as caught:
        scan_parts(small)
    assert tree_problems(small) == [str(caught.value)]


def test_for_a_flat_folder_the_message_has_the_needed_layout(tmp_path):
    picture(tmp_path / "a.png")
    assert "images lie in train/<class>/" in tree_problems(tmp_path)[0]
    for part in ("train", "val"):
        picture(tmp_path / part / "a.png")
    assert "has no class folders: images lie in train/<class>/" in tree_problems(tmp_path)[0]
    assert "has no folder train" in tree_problems(tmp_path / "nowhere")[0]


def test_links_to_images_and_folders_elsewhere_are_followed(small, tmp_path_factory):
    pool = tmp_path_factory.mktemp("pool")
    picture(pool / "objects" / "0.png")
    picture(pool / "newt" / "0.png")
    (pool / "objects" / "hash").write_bytes((pool / "objects" / "0.png").read_bytes())
    for part in ("train", "val"):
        (small / part / "newt").mkdir()
        shutil.copytree(pool / "newt", pool / f"newt_{part}")
        (small / part / "newt" / "more").symlink_to(pool / f"newt_{part}")
    (small / "train/cat/2.png").symlink_to(pool / "objects" / "hash")
    train, val = scan_parts(small)
    assert (len(train.paths), len(val.paths)) == (6, 5)


def test_images_with_a_wrong_header_are_named(small):
    (small / "train/cat/0.png").write_text("no image")
    Image.fromarray(np.zeros((2, 2), np.float32)).save(small / "val/dog/2.tiff")
    problems, notes = inspect_tree(small, headers=None)
    assert len(problems) == 2
    assert "1 of 4 images looked at" in problems[0]
    assert "cat/0.png: it is not an image of a format" in problems[0]
    assert "dog/2.tiff: it has floating-point values" in problems[1]
    assert notes[0] == "train: 4 images in 2 classes of 2 to 2."
    assert notes[1] == "train: 3 headers read; sides from 2 to 3 pixels; modes RGB (3)."


def test_write_with_check_describes_the_tree_and_writes_nothing(small, capsys):
    before = sorted(small.rglob("*"))
    assert write.main([f"source={small}", "check=true"]) == 0
    assert "train: 4 images in 2 classes" in capsys.readouterr().out
    (small / "train/cat/0.png").write_text("no image")
    with pytest.raises(UserError, match=r"0\.png: it is not an image"):
        write.main([f"source={small}", "check=true"])
    assert sorted(small.rglob("*")) == before
    with pytest.raises(UserError, match="add source=DIR"):
        write.main(["check=true"])
    with pytest.raises(UserError, match="photos should have 48 training images"):
        write.main([f"source={small}", f"dataset={PHOTOS}", "check=true"])


def test_a_folder_that_cannot_be_read_is_an_error(small, monkeypatch):
    def forbidden(path):
        if Path(path).name == "dog":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    scandir = os.scandir
    # Not by the mode of the folder, because root may read every folder.
    monkeypatch.setattr(os, "scandir", forbidden)
    with pytest.raises(UserError, match=r"train/dog cannot be read \(Permission denied\)"):
        scan_parts(small)

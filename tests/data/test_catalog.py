"""Configs are compared with the catalog without loading data, and missing files are explained."""

import subprocess
import sys

import pytest

import harness.data
import harness.models
import harness.store
from harness.data.catalog import CATALOG, misfits, missing
from harness.schema import DatasetConfig


def config(name="digits", validation_size=100, **rest):
    return DatasetConfig(name=name, validation_size=validation_size, **rest)


def test_a_config_that_fits_has_no_problems():
    assert misfits(config(train_size=1_337, test_size=360)) == []


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (config("digit"), ("dataset.name", "'digit'", "did you mean 'digits'?")),
        (config(validation_size=1_437), ("dataset.validation_size", "1437", "nothing to train")),
        (config(train_size=1_338), ("dataset.train_size", "1338", "1337")),
        (config(test_size=361), ("dataset.test_size", "361", "360")),
    ],
)
def test_a_wrong_name_or_size_is_explained(wrong, words):
    (problem,) = misfits(wrong)
    assert all(word in problem for word in words), problem


def test_all_problems_are_listed_at_once():
    assert len(misfits(config(train_size=1_400, test_size=400))) == 2


def test_missing_files_are_named_with_the_searched_folders_and_the_remedy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "root" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    (folder / "test_batch").touch()
    problem = missing(CATALOG["cifar10"], str(tmp_path / "root"))
    assert f"{folder} (lacks data_batch_1," in problem
    assert "test_batch" not in problem
    assert "data/cifar-10-batches-py (no such folder)" in problem
    assert "python -m harness.data.download cifar10" in problem
    for name in CATALOG["cifar10"].files:
        (folder / name).touch()
    assert missing(CATALOG["cifar10"], str(tmp_path / "root")) is None


def test_planning_imports_neither_torch_nor_numpy():
    code = (
        "import sys, harness.data.catalog as c, harness.models as models, harness.store\n"
        "from harness.data import CATALOG\n"
        "from harness.schema import DatasetConfig, ModelConfig\n"
        "c.misfits(DatasetConfig(name='digits', validation_size=1))\n"
        "c.missing(CATALOG['digits'], None)\n"
        "models.check(ModelConfig(family='cifar_resnet', depth=8))\n"
        "print([m for m in ('torch', 'numpy', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("package", [harness.data, harness.models, harness.store])
def test_a_package_exports_its_public_names(package):
    assert package.__all__
    assert all(getattr(package, name) is not None for name in package.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = package.no_such_name

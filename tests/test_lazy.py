"""The public names of packages, which planning imports without torch."""

import importlib
import subprocess
import sys

import pytest

PACKAGES = (
    "harness.augment",
    "harness.compress",
    "harness.data",
    "harness.models",
    "harness.train",
)


@pytest.mark.parametrize("name", PACKAGES)
def test_every_public_name_is_there_and_no_other(name):
    package = importlib.import_module(name)
    for exported in package.__all__:
        assert getattr(package, exported) is not None
    with pytest.raises(AttributeError, match="has no attribute 'absent'"):
        package.absent  # noqa: B018


def test_the_packages_themselves_import_no_torch():
    program = f"import sys, {', '.join(PACKAGES)}; print('torch' in sys.modules)"
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert process.stdout.strip() == "False", process.stderr

"""The public names of packages. Planning imports these packages, and must work without torch."""

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
def test_a_package_has_all_its_public_names_and_refuses_others(name):
    package = importlib.import_module(name)
    for exported in package.__all__:
        assert getattr(package, exported) is not None
    with pytest.raises(AttributeError, match="has no attribute 'absent'"):
        package.absent  # noqa: B018


def test_importing_the_packages_does_not_import_torch():
    program = f"import sys, {', '.join(PACKAGES)}; print('torch' in sys.modules)"
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert process.stdout.strip() == "False", process.stderr

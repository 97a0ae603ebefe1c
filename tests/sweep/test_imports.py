"""Planning and analysis run where torch is not installed."""

import pkgutil
import subprocess
import sys

import pytest

import analysis
import harness.config
import harness.sweep

CODE = """
import importlib, sys
for name in {names!r}:
    importlib.import_module(name)
assert "torch" not in sys.modules, "torch was imported"
"""


@pytest.mark.slow
@pytest.mark.parametrize("package", [harness.sweep, harness.config, analysis])
def test_no_module_of_a_package_imports_torch(package):
    modules = pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    names = [package.__name__, *(m.name for m in modules if not m.name.endswith("__main__"))]
    process = subprocess.run(
        [sys.executable, "-c", CODE.format(names=names)],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr

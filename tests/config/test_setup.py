"""What setting up asks of a system."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_elsewhere_than_on_debian_the_packages_are_named():
    process = subprocess.run(
        ["/bin/sh", ".ci/packages", "g++", "libopencv-dev"],
        cwd=ROOT, env={"PATH": "/nowhere"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "not a Debian system" in process.stderr
    assert "g++ libopencv-dev" in process.stderr


@pytest.mark.skipif(not os.access("/usr/bin/python3", os.X_OK), reason="no Python of the system's")
@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
def test_the_systems_python_is_asked_for_with_its_venv_and_another_is_not(tmp_path):
    own = tmp_path / "python3"
    own.write_text("#!/bin/sh\n")
    own.chmod(0o755)
    for python, needs in (("/usr/bin/python3", True), (str(own), False)):
        process = subprocess.run(
            ["make", "--no-print-directory", "-n", "setup", f"PYTHON={python}"],
            cwd=ROOT, capture_output=True, text=True, check=True,
            env={name: value for name, value in os.environ.items() if not name.startswith("MAKE")},
        )  # fmt: skip
        (packages,) = [line for line in process.stdout.splitlines() if "packages g++" in line]
        assert ("python3-venv" in packages) is needs

"""The public names of harness.train, which planning imports without torch."""

import subprocess
import sys

from harness import train


def test_every_public_name_is_there():
    for name in train.__all__:
        assert callable(getattr(train, name)), name


def test_the_package_itself_imports_no_torch():
    program = "import sys, harness.train; print('torch' in sys.modules)"
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert process.stdout.strip() == "False", process.stderr

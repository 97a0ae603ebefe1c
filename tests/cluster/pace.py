"""A network whose training steps take as long as a test says: tests need not guess speeds.

It is `cifar_resnet` under another name, in a plug-in file. While the pace is above 0, each training
step lasts at least so many seconds, so that a training cannot end before a test lets it. The worker
goes on with heartbeats, checkpoints and signals between its steps.
"""

import contextlib
import os
from pathlib import Path

import pytest

from harness import plugins
from harness.models.registry import FAMILIES

FAMILY = "paced_resnet"
TEXT = '''"""cifar_resnet, whose training steps last as long as a file says."""

import dataclasses
import time
from pathlib import Path

from harness.models import register_family
from harness.models.registry import FAMILIES

PACE = Path({pace!r})
RESNET = FAMILIES.get("cifar_resnet")


def wait(module, inputs):
    if module.training and PACE.exists():
        time.sleep(float(PACE.read_text() or 0))


def build(**arguments):
    model = RESNET.build(**arguments)
    model.register_forward_pre_hook(wait)
    return model


register_family(dataclasses.replace(RESNET, name={family!r}, build=build))
'''


class Pace:
    """The plug-in file in a folder, and the file with its seconds."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / "pace"
        self.plugin = folder / "paced_resnet.py"
        self.plugin.write_text(TEXT.format(pace=str(self.file), family=FAMILY))

    def set(self, seconds: float) -> None:
        """Let each training step last at least `seconds`."""
        fresh = self.file.with_suffix(".new")
        fresh.write_text(str(seconds))
        fresh.rename(self.file)

    def environment(self, env: dict[str, str]) -> dict[str, str]:
        """Return `env` with the plug-in in it, for commands that train the family."""
        return {**env, plugins.PLUGINS: str(self.plugin)}


@contextlib.contextmanager
def separate_registries():
    """Leave no plug-in behind that is imported in here: a command runs in the tests' process."""
    with pytest.MonkeyPatch.context() as patch:
        if plugins.PLUGINS in os.environ:
            patch.setattr(FAMILIES, "items", dict(FAMILIES.items))
            patch.setattr(plugins, "_imported", {})
        yield

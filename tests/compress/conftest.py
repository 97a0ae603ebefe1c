"""Plug-in files for tests: what they register is removed again at the end of the test."""

import os

import pytest

from harness import plugins
from harness.compress.methods import METHODS
from harness.compress.surplus import FORMS
from harness.models.family import FAMILIES


@pytest.fixture
def add_plugin(tmp_path, monkeypatch):
    """Return a function (name, text) that writes a plug-in file for this test and returns its path.

    With the text None, the file is listed but not written.
    """
    for registry in (METHODS, FORMS, FAMILIES):
        monkeypatch.setattr(registry, "items", dict(registry.items))
    monkeypatch.setattr(plugins, "_imported", {})
    monkeypatch.delenv(plugins.PLUGINS, raising=False)

    def add(name, text):
        path = tmp_path / name
        if text is not None:
            path.write_text(text)
        before = os.environ.get(plugins.PLUGINS)
        files = [before, str(path)] if before else [str(path)]
        monkeypatch.setenv(plugins.PLUGINS, os.pathsep.join(files))
        return path

    return add

"""Plug-in files for tests: what they register is forgotten when a test has ended."""

import os

import pytest

from harness import plugins
from harness.compress.methods import METHODS
from harness.compress.surplus import FORMS
from harness.models.family import FAMILIES


@pytest.fixture
def add_plugin(tmp_path, monkeypatch):
    """(name, text) -> the path of a file with that text, which is a plug-in during the test."""
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

"""Shared by all tests: one torch thread, so that figures and bits do not depend on the machine."""

import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Deal the tests of clusters one by one, first, and all others by file.

    They wait most of their time: so the short ones of other files fill what is left at the end.
    Other files share what their fixtures made.
    """
    items.sort(key=lambda item: item.path.parent.name != "cluster")
    for item in items:
        if item.path.parent.name != "cluster":
            item.add_marker(pytest.mark.xdist_group(str(item.path)))


@pytest.fixture(scope="session")
def world():
    """The one process group that a test process can have."""
    from harness.schema import RunConfig
    from harness.train.distributed import connected

    with connected(RunConfig(device="cpu")) as found:
        yield found

"""Shared by all tests: one torch thread, so that figures and bits do not depend on the machine."""

import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

LONGEST = ("test_faults.py", "test_chaos.py")


def pytest_collection_modifyitems(items):
    """What takes longest begins first, so that no process of several is left alone with it."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(scope="session")
def world():
    """The one process group that a test process can have."""
    from harness.schema import RunConfig
    from harness.train.distributed import connected

    with connected(RunConfig(device="cpu")) as found:
        yield found

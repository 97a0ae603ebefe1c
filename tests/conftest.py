"""Shared by all tests: one torch thread, so that figures and bits do not depend on the machine."""

import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.fixture(scope="session")
def world():
    """The one process group that a test process can have."""
    from harness.schema import RunConfig
    from harness.train.distributed import connected

    with connected(RunConfig(device="cpu")) as found:
        yield found

"""A compiled loop is kept for the next process, and works where that fails."""

import pytest

LOOP = """
import numpy as np
from harness.cached_jit import Kept

@Kept
def doubled(values):
    out = np.empty_like(values)
    for i in range(len(values)):
        out[i] = 2 * values[i]
    return out
"""
CALL = """
import resource, sys, warnings
warnings.simplefilter("error")
{before}
sys.path.insert(0, {folder!r})
import numpy as np
from loop import doubled
for _ in range(2):
    assert doubled(np.arange(3)).tolist() == [0, 2, 4]
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
print(doubled.loop.stats.cache_hits.total(), "kept before")
"""


@pytest.fixture
def call(in_child, tmp_path):
    """(statements before) -> what a process prints that calls the loop."""
    (tmp_path / "loop.py").write_text(LOOP)
    return lambda before="": in_child(CALL.format(before=before, folder=str(tmp_path)))


def test_the_next_process_takes_what_was_kept(call, tmp_path):
    assert call() == "0 kept before\n"
    assert any(tmp_path.rglob("loop.doubled*.nbc"))
    assert call() == "1 kept before\n"


@pytest.mark.parametrize(
    "before",
    [
        "from numba.core.caching import CacheImpl\nCacheImpl._locator_classes = []",
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))",
    ],
    ids=["no cache folder", "no space in it"],
)
def test_it_works_where_nothing_can_be_kept(call, tmp_path, before):
    call(before)
    assert not any(path.stat().st_size for path in tmp_path.rglob("*.nb*"))


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
def test_it_works_where_what_was_kept_is_damaged(call, tmp_path, suffix):
    call()
    (damaged,) = tmp_path.rglob(f"loop.doubled*.{suffix}")
    content = damaged.read_bytes()
    damaged.write_bytes(content[: len(content) // 3 if suffix == "nbc" else 0])
    note, _, rest = call().partition("\n")
    assert note.startswith("note: the compiled loops")
    assert str(tmp_path) in note
    assert rest == "0 kept before\n"

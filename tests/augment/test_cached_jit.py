"""A compiled function is cached for the next process, and runs even if caching fails."""

import pytest

LOOP = """
import numpy as np
from harness.cached_jit import CachedJit

@CachedJit
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
print(doubled.compiled.stats.cache_hits.total(), "read from the cache")
"""


@pytest.fixture
def call(in_child, tmp_path):
    """A function (first statements) -> output of a process that runs them and calls `doubled`."""
    (tmp_path / "loop.py").write_text(LOOP)
    return lambda before="": in_child(CALL.format(before=before, folder=str(tmp_path)))


def test_the_next_process_reads_the_cache(call, tmp_path):
    assert call() == "0 read from the cache\n"
    assert any(tmp_path.rglob("loop.doubled*.nbc"))
    assert call() == "1 read from the cache\n"


@pytest.mark.parametrize(
    "before",
    [
        "from numba.core.caching import CacheImpl\nCacheImpl._locator_classes = []",
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))",
    ],
    ids=["no cache folder", "full disk"],
)
def test_it_runs_if_nothing_can_be_cached(call, tmp_path, before):
    call(before)
    assert not any(path.stat().st_size for path in tmp_path.rglob("*.nb*"))


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
def test_it_runs_if_the_cache_is_damaged(call, tmp_path, suffix):
    call()
    (damaged,) = tmp_path.rglob(f"loop.doubled*.{suffix}")
    content = damaged.read_bytes()
    damaged.write_bytes(content[: len(content) // 3 if suffix == "nbc" else 0])
    note, _, rest = call().partition("\n")
    assert note.startswith("note: the compiled code that Numba cached")
    assert str(tmp_path) in note
    assert rest == "0 read from the cache\n"

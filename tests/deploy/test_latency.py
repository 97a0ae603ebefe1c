"""`harness.latency` records times beside stages, and a table has them as sizes."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

from analysis import table
from analysis.best import best_per_size
from harness import latency
from harness.deploy.latency import FEWEST, choose_device, measure
from harness.errors import UserError
from harness.rows import rows_of_grid
from harness.store.latency import read_latencies, write_latency
from harness.store.store import Store

BATCHES = {
    "1": {"median_ms": 2.0, "low_ms": 1.0, "high_ms": 3.0, "repeats": 10},
    "64": {"median_ms": 64.0, "low_ms": 60.0, "high_ms": 70.0, "repeats": 10},
}
RECORD = {"device": "cpu (x)", "runtime": "torch", "threads": 1, "batches": BATCHES}


@pytest.fixture
def copy(sweep, tmp_path):
    """The words of a copy of the sweep, whose store may be changed."""
    shutil.copytree(sweep[1].removeprefix("store="), tmp_path / "store")
    return [sweep[0], f"store={tmp_path / 'store'}"]


def test_quartiles_and_threads():
    threads = torch.get_num_threads()
    seen = []

    class Network(nn.Module):
        def forward(self, images):
            seen.append((len(images), torch.get_num_threads(), images.dtype))
            return images.mean((2, 3))

    record = measure(Network().eval(), 3, 4, choose_device("cpu"))
    assert set(seen) == {(1, 1, torch.float32), (64, 1, torch.float32)}
    assert torch.get_num_threads() == threads
    for times in record["batches"].values():
        assert 0 < times["low_ms"] <= times["median_ms"] <= times["high_ms"]
        assert times["repeats"] >= FEWEST
    assert record["device"].startswith("cpu (")
    assert (record["threads"], "eager fp32" in record["runtime"]) == (1, True)


def test_one_record_for_each_device_and_damaged_ones_are_left_out(tmp_path, capsys):
    store, stage = Store(tmp_path), "0123456789abcdef"
    assert read_latencies(store, stage) == []
    write_latency(store, stage, {**RECORD, "measured_at": 1.0})
    write_latency(store, stage, {**RECORD, "measured_at": 2.0})
    write_latency(store, stage, {**RECORD, "measured_at": 1.5, "device": "gpu"})
    records = {record["device"]: record for record in read_latencies(store, stage)}
    assert {name: record["measured_at"] for name, record in records.items()} == {
        "cpu (x)": 2.0, "gpu": 1.5,
    }  # fmt: skip
    folder = store.folder(stage) / "evaluations"
    (folder / "0000000000000000.json").write_text('{"val": {"top1": 1}}')  # of another kind
    assert len(read_latencies(store, stage)) == 2
    for path in folder.glob("*.json"):
        path.write_text(path.read_text().replace("64.0", "65.0"))
    assert read_latencies(store, stage) == []
    assert capsys.readouterr().err.count("run harness.latency again") == 2


@pytest.mark.slow
def test_a_table_by_latency(copy, capsys):
    with pytest.raises(UserError, match=r"harness\.latency grid=NAME measures it"):
        table.main([*copy, "by=latency_ms"])
    assert "latency_ms" not in rows_of_grid(copy)[0]
    ids = {path.name for path in Path(copy[1].removeprefix("store=")).glob("stages/*/*")}

    assert latency.main([*copy, "where=width == 0.1 and magnitude == 0.5", "run.device=cpu"]) == 0
    with pytest.raises(UserError, match=r"of some sizes was not measured"):
        table.main([*copy, "by=latency_ms"])
    assert latency.main([*copy, "run.device=cpu"]) == 0
    out = capsys.readouterr().out
    assert "ms for one image" in out
    assert "images/s in batches of 64" in out

    rows = pd.DataFrame(rows_of_grid(copy))
    measured = rows[rows["latency_ms"].notna()]
    assert 2 <= len(measured) <= 4
    assert measured["latency_device"].nunique() == 1
    assert (rows["latency_ms"].isna() == rows["throughput"].isna()).all()
    results = best_per_size(rows, ["latency_ms"])
    expected = measured.groupby("width")["latency_ms"].mean()
    assert sorted(r.size["latency_ms"] for r in results) == pytest.approx(
        sorted(expected), rel=1e-3
    )
    assert all(len(cell.val) == 2 for result in results for cell in result.cells)
    assert table.main([*copy, "by=latency_ms"]) == 0
    assert "latency (ms)" in capsys.readouterr().out
    # measuring trains nothing, and no identity changed
    store = Path(copy[1].removeprefix("store="))
    assert {path.name for path in store.glob("stages/*/*")} == ids


@pytest.mark.slow
def test_rows_have_the_device_that_was_measured_last(copy):
    first, second, *_ = (row["stage"] for row in rows_of_grid(copy))
    store = Store(Path(copy[1].removeprefix("store=")))
    for stage, device, at in [(first, "old", 1.0), (second, "old", 1.0), (first, "new", 2.0)]:
        write_latency(store, stage, {**RECORD, "device": device, "measured_at": at})
    by_stage = {row["stage"]: row for row in rows_of_grid(copy)}
    assert by_stage[first]["latency_device"] == "new"
    assert by_stage[first]["latency_ms"] == 2.0
    assert by_stage[first]["throughput"] == 1000.0
    assert by_stage[second]["latency_ms"] is None


def test_a_gpu_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"finds no GPU here; set run\.device=cpu"):
        choose_device("cuda")
    assert choose_device("auto").type == "cpu"

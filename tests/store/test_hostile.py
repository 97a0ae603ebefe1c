"""A store of another person or from a broken disk: each value of each file, replaced by others."""

import contextlib
import json
import os
import time

import pandas as pd
import pytest

from analysis.checks import check
from analysis.provenance import warnings
from harness.cluster import failure
from harness.cluster.enqueue import record_losses
from harness.cluster.job_registry import last_logs, record_job_id, record_submission
from harness.cluster.sweep_view import read_again
from harness.commands import logs, status
from harness.config import load
from harness.errors import UserError
from harness.files import append_line, write_json
from harness.rows import rows
from harness.store.claims import try_claim
from harness.store.records import DIGEST, read_lines, sealed
from harness.store.store import Store
from harness.sweep import cost
from harness.sweep.plan import make_plan

SCORES = {"top1": 0.5, "loss": 1.0}
COUNTS = {"params_total": 5, "params_nonzero": 4, "macs_dense": 9, "macs_nonzero": 8}
RESULT = {
    "status": "done", "val": SCORES, "test": SCORES, "counts": COUNTS, "epochs": 1, "examples": 128,
    "train_macs": 10**15, "sparsity": 0.0, "timing": {"gpu_seconds": 1.0},
}  # fmt: skip
DIFFICULTY = {"dataset": "digits", "policies": {"randaug(n=2)": {"loss": 1.5}}}
RAW = "@RAW@"
VALUES = (
    "null", '""', "-1", "1e400", "-1e400", "1" + "0" * 400, "[]", "{}", "true", "NaN", "1e308",
    "1" + "0" * 30, "0.5", '"x/../../../outside"', r'"\ud800"', r'"\u0000"', '"/etc/passwd"',
    "[" * 100_000, '{"a":' * 100_000, '"' + "x" * 5000 + '"',
)  # fmt: skip
"""JSON texts, each of which takes the place of each value."""


@pytest.fixture(autouse=True)
def no_slurm(monkeypatch):
    """The store names jobs, and this machine may have a squeue without a controller."""
    monkeypatch.setenv("PATH", "")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """A launch, its plan and its store: one stage done, one claimed, one failed, one begun."""
    folder = tmp_path_factory.mktemp("hostile")
    launch = load(["grid=quickstart", "axes.seed=[0]", "axes.sparsity=[0.0]", "axes.width=[0.5]",
                   "axes.magnitude=[none,0.2,0.4,0.6]", f"store={folder}"])  # fmt: skip
    store, plan = Store(launch.store), make_plan(launch.grid)
    done, claimed, failed, begun = (store.prepare(s, c) for s, c in plan.stages.items())
    logs_folder = store.sweep_folder(launch.grid.name) / "logs" / "one"
    logs_folder.mkdir(parents=True)
    (logs_folder / "7_0_log.out").write_text("text of a log\n")
    claim = try_claim(done, "7")
    store.finish(done.name, claim, RESULT)
    claim.release()
    entry = {"code": "a", "packages": {"torch": "2"}, "engine": "ddp", "files": {"rng.py": "b"}}
    write_json(done / "provenance.json", sealed({"records": [entry]}))
    try_claim(claimed, "8", log=store.relative(logs_folder / "7_0_log.out"))
    for kind in ("lost", "out_of_memory"):
        record = {"class": kind, "message": "m", "step": 3, "job": "7", "attempt": 0}
        store.record_failure(failed.name, {**record, "micro_batch_size": 8, "error": "E"})
    log = store.relative(logs_folder / "7_0_log.out")
    attempt = {"job": "7", "attempt": 0, "log": log, "time": 1.0, "gang": [begun.name]}
    append_line(begun / "attempts.jsonl", attempt)
    append_line(begun / "metrics.jsonl", {"step": 1, "train_loss": 1.0})
    sweep_folder = store.sweep_folder(launch.grid.name)
    record_submission(sweep_folder, "name", [[begun.name]], logs_folder)
    record_job_id(sweep_folder, "name", "7")
    write_json(sweep_folder / "difficulty.json", sealed(DIFFICULTY))
    cost.write_measurement(store.root, plan.stages[done.name],
                           cost.Measurement(2.5, 0.5, 1 << 30, 1 << 34, "cpu"))  # fmt: skip
    return launch, plan, store


def observe(launch, plan, store):
    """Read the store as status, rows, logs, launch and a worker do."""
    sweep = read_again(launch, plan)
    text = status.screen(sweep, ["magnitude"]) + json.dumps(status.as_dict(sweep))
    table = rows(launch.grid.name, plan, store, sweep.states)
    text += str(logs._logs(sweep)) + str(last_logs(store.root, list(plan.stages)))
    store.damaged_files(plan.stages)
    with contextlib.suppress(UserError):
        cost.check_budget(plan, sweep.states, list(plan.stages), store.root, 1.0)
    for stage in plan.stages:
        failures = store.failures(stage)
        failure.blocks(failures), failure.micro_batch_size(failures, 8)
        failure.memory_factor(failures), failure.pause_seconds(failures)
        text += "".join(map(failure.signature, failures))
        read_lines(store.folder(stage) / "metrics.jsonl")
    text += str(warnings(check(pd.DataFrame(table), "rows")))
    (text + json.dumps(table, allow_nan=False)).encode()
    return table


def places(value):
    """Yield the path of every value in a JSON value: the keys that lead to it."""
    yield ()
    items = list(value.items() if isinstance(value, dict) else [])
    items += enumerate(value) if isinstance(value, list) else []
    for key, item in items:
        yield from ((key, *rest) for rest in places(item))


def replaced(value, place):
    """Return the value with RAW at a place."""
    if not place:
        return RAW
    changed = value.copy()
    changed[place[0]] = replaced(value[place[0]], place[1:])
    return changed


def test_an_unchanged_store_is_read(sweep):
    table = observe(*sweep)
    assert [row["state"] for row in table] == ["done", "running", "failed", "waiting"]
    assert table[0]["engine"] == "ddp"
    assert table[0]["estimated_seconds"] is not None
    assert {row["difficulty"] for row in table} >= {None}
    assert last_logs(sweep[2].root, list(sweep[1].stages))


FILES = (
    "result.json", "config.json", "provenance.json", "claim", "failures/001.json",
    "failures/002.json", "attempts.jsonl", "metrics.jsonl", "jobs.jsonl", "difficulty.json",
    "pilots",
)  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_no_value_of_any_file_ends_in_a_traceback(sweep, name):
    launch, plan, store = sweep
    pattern = {"pilots": "pilots/*.json"}.get(name, f"s*/**/{name}")
    for path in sorted(store.root.glob(pattern))[:1]:
        original = path.read_bytes()
        old = time.time() - 3600
        try:
            for number, line in enumerate(original.splitlines() if "jsonl" in name else [original]):
                value = json.loads(line)
                is_sealed = value.pop(DIGEST, None) is not None
                for place in places(value):
                    for text in VALUES:
                        changed = replaced(value, place)
                        if is_sealed and place:
                            with contextlib.suppress(ValueError, RecursionError):
                                changed = sealed(replaced_by(changed, json.loads(text)))
                        content = json.dumps(changed).replace(json.dumps(RAW), text).encode()
                        if "jsonl" in name:
                            lines = original.splitlines()
                            content = b"\n".join([*lines[:number], content, *lines[number + 1 :]])
                        path.write_bytes(content)
                        observe(launch, plan, store)
                        if name == "claim":
                            os.utime(path, (old, old))
                            observe(launch, plan, store)
                            claim = try_claim(path.parent, "other")
                            record_losses(
                                store, [path.parent.name], read_again(launch, plan).scheduler
                            )
                            assert claim is not None
        finally:
            path.write_bytes(original)
        return
    pytest.fail(f"the store has no {name}")


def replaced_by(value, new):
    """Return the value with `new` in the place of RAW."""
    if isinstance(value, dict):
        return {key: replaced_by(item, new) for key, item in value.items()}
    if isinstance(value, list):
        return [replaced_by(item, new) for item in value]
    return new if value == RAW else value

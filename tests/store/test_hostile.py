"""A store of another person or from a broken disk: any value in any file may be replaced."""

import contextlib
import json
import os
import time
from dataclasses import replace

import pandas as pd
import pytest

from analysis.checks import check
from analysis.provenance import warnings
from harness.cluster import failure
from harness.cluster.enqueue import record_losses
from harness.cluster.job_registry import (
    GAVE_UP,
    Scheduler,
    last_logs,
    reason_to_give_up,
    record_job_id,
    record_submission,
)
from harness.cluster.state import stage_states
from harness.cluster.sweep_view import Sweep, select_trials
from harness.commands import doctor, logs, status
from harness.config import load
from harness.errors import UserError
from harness.files import Damaged, append_line, write_json
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
RAW = "@RAW@"  # stands for a JSON text until the rest of a file is encoded
VALUES = (
    "null", '""', "-1", "1e400", "1" + "0" * 400, "[]", "{}", "true", "NaN", "[" * 100_000,
    '"x/../../../outside"', r'"\ud800"',
)  # fmt: skip
"""JSON texts, each of which replaces each value."""
CHECKED_TABLES = []  # tables of rows that `observe` has checked already


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Return a launch, its plan and its store with one stage each done, claimed, failed, begun."""
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
    name = record_submission(sweep_folder, [[begun.name]], logs_folder)
    record_job_id(sweep_folder, name, "7")
    words = {"words": ["recipe.epochs=2"], "stages": [begun.name, "0123456789abcdef"], "time": 1.0}
    append_line(sweep_folder / "launches.jsonl", words)
    write_json(sweep_folder / "difficulty.json", sealed(DIFFICULTY))
    cost.write_measurement(store.root, plan.stages[done.name],
                           cost.Measurement(2.5, 0.5, 1 << 30, 1 << 34, "cpu"))  # fmt: skip
    return launch, plan, store


def observe(launch, plan, store):
    """Read the store as status, rows, logs, launch and a worker do; return the rows."""
    states = stage_states(store, plan.stages)
    sweep = Sweep(launch, plan, store, Scheduler(), states, select_trials(plan, states, launch))
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
    if table not in CHECKED_TABLES:
        CHECKED_TABLES.append(table)
        with contextlib.suppress(UserError):
            text += str(warnings(check(pd.DataFrame(table), "rows")))
    (text + json.dumps(table, allow_nan=False)).encode()
    return table


def paths(value):
    """Yield the path of every value inside a JSON value: a tuple of keys and indices."""
    yield ()
    items = list(value.items() if isinstance(value, dict) else [])
    items += enumerate(value) if isinstance(value, list) else []
    for key, item in items:
        yield from ((key, *rest) for rest in paths(item))


def replaced(value, path, new):
    """Return the JSON value with `new` at `path`."""
    if not path:
        return new
    key, *rest = path
    changed = value.copy()
    changed[key] = replaced(value[key], rest, new)
    return changed


def test_an_unchanged_store_is_read(sweep):
    table = observe(*sweep)
    assert [row["state"] for row in table] == ["done", "running", "failed", "waiting"]
    assert table[0]["engine"] == "ddp"
    assert table[0]["estimated_seconds"] is not None
    assert None in {row["difficulty"] for row in table}
    assert last_logs(sweep[2].root, list(sweep[1].stages))


def test_the_doctor_names_changed_files_and_counts_results_without_a_digest(sweep, tmp_path):
    launch, plan, _ = sweep
    store = Store(tmp_path)
    changed, old, bits = list(plan.stages.items())[:3]
    for stage, config in (changed, old, bits):
        folder = store.prepare(stage, config)
        (folder / "correct.npz").write_bytes(b"bits")
        store.finish(stage, try_claim(folder, "7"), RESULT)
    path = store.folder(changed[0]) / "result.json"
    path.write_text(path.read_text().replace("0.5", "0.7"))
    write_json(store.folder(old[0]) / "result.json", {"stage": old[0], **RESULT})
    (store.folder(bits[0]) / "correct.npz").write_bytes(b"bitz")
    findings = doctor.store(replace(launch, store=tmp_path))
    details = "\n".join(detail for _, _, detail in findings)
    assert f"{path} was changed after it was written" in details
    assert "1 were written before results had a digest" in details
    assert f"correct.npz of {bits[0]} was changed" in details


def test_a_file_that_is_longer_than_the_memory_is_damaged(sweep, tmp_path):
    launch, plan, _ = sweep
    store = Store(tmp_path)
    stage, config = next(iter(plan.stages.items()))
    folder = store.prepare(stage, config)
    store.finish(stage, try_claim(folder, "7"), RESULT)
    for path in (folder / "correct.npz", folder / "attempts.jsonl", folder / "result.json"):
        path.touch()
        os.truncate(path, 1 << 43)  # a sparse file, which takes no space on the disk
    assert store.correct_digest(stage) is None
    assert read_lines(folder / "attempts.jsonl") == []
    with pytest.raises(Damaged, match="too long"):
        store.result(stage)
    details = "\n".join(detail for _, _, detail in doctor.store(replace(launch, store=tmp_path)))
    assert "result.json is too long" in details


def test_a_pipe_in_the_place_of_the_file_with_a_reason_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / GAVE_UP)
    assert reason_to_give_up(tmp_path) is None


# a name for each kind of file, and the pattern of its path in the store
FILES = {
    "result.json": "s*/**/result.json", "config.json": "s*/**/config.json",
    "provenance.json": "s*/**/provenance.json", "claim": "s*/**/claim",
    "first failure": "s*/**/001.json", "second failure": "s*/**/002.json",
    "attempts.jsonl": "s*/**/attempts.jsonl", "metrics.jsonl": "s*/**/metrics.jsonl",
    "jobs.jsonl": "s*/**/jobs.jsonl", "launches.jsonl": "s*/**/launches.jsonl",
    "difficulty.json": "s*/**/difficulty.json", "measurement": "pilots/*.json",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_no_value_of_any_file_ends_in_a_traceback(sweep, name):
    launch, plan, store = sweep
    path = min(store.root.glob(FILES[name]))
    original = path.read_bytes()
    try:
        for content in changed_contents(original, name.endswith("jsonl")):
            path.write_bytes(content)
            observe(launch, plan, store)
            if name == "claim":
                old = time.time() - 3600
                os.utime(path, (old, old))
                observe(launch, plan, store)
                record_losses(store, [path.parent.name], Scheduler())
                assert not path.exists()  # the claim was taken over, and released
    finally:
        path.write_bytes(original)


def changed_contents(original, is_lines):
    """Yield the content of a file with each value replaced by each of VALUES.

    A sealed record gets a valid digest again, so that its values are checked too.
    """
    lines = original.splitlines() if is_lines else [original]
    for number, line in enumerate(lines):
        value = json.loads(line)
        is_sealed = value.pop(DIGEST, None) is not None
        # a few values of a config are enough, because it is checked by its digest alone
        for path in list(paths(value))[: 5 if "schema_number" in value else None]:
            for text in VALUES:
                changed = replaced(value, path, RAW)
                if is_sealed and path:
                    with contextlib.suppress(ValueError, RecursionError):
                        changed = sealed(replaced(value, path, json.loads(text)))
                content = json.dumps(changed).replace(json.dumps(RAW), text).encode()
                yield b"\n".join([*lines[:number], content, *lines[number + 1 :]])

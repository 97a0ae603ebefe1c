"""The store of stages: what is read is what was written, also from damaged or foreign files."""

import contextlib
import errno
import json
import os
import shutil
import subprocess
import sys

import pytest

from harness import files
from harness.errors import UserError
from harness.files import CannotWrite, Damaged, append_line, atomic_write
from harness.schema import StageConfig
from harness.store.claims import ClaimLost, look, try_claim
from harness.store.identity import canonical_json, stage_id
from harness.store.records import read_lines
from harness.store.store import CORRECT_DIGEST, Store

TIMING = {"gpu_seconds": 1.0}


def config(**changes):
    content = {
        "seed": 0,
        "dataset": {"name": "digits", "validation_size": 100},
        "model": {"family": "cifar_resnet", "depth": 8, "width": 0.5},
        "augment": {"policy": "none", "crop_padding": 0, "flip": False},
        "recipe": {"epochs": 1, "batch_size": 32, "optimizer": {"lr": 0.1}},
    }
    return StageConfig.model_validate({**content, **changes})


def finished(store, stage_config, result=None):
    stage = stage_id(stage_config)
    folder = store.prepare(stage, stage_config)
    claim = try_claim(folder, "test")
    store.finish(stage, claim, result or {"status": "done", "timing": TIMING, "val": {"top1": 0.5}})
    claim.release()
    return stage


def test_identity_ignores_key_order_and_how_a_number_is_written():
    one = config(model={"family": "cifar_resnet", "depth": 8, "width": 1})
    two = config(model={"width": 1.0, "depth": 8, "family": "cifar_resnet"})
    assert stage_id(one) == stage_id(two)
    assert canonical_json({"b": 1, "a": 0.1}) == '{"a":0.1,"b":1}'


def test_identity_covers_every_scientific_field_defaults_included():
    base = stage_id(config())
    assert stage_id(config(seed=1)) != base
    assert stage_id(config(parent="0" * 16)) != base
    dumped = config().model_dump(mode="json")
    dumped["recipe"]["optimizer"]["momentum"] = 0.8  # as if the default had changed
    assert stage_id(StageConfig.model_validate_json(json.dumps(dumped))) != base


def test_a_stage_is_done_as_soon_as_its_result_is_written(tmp_path):
    store = Store(tmp_path / "store")
    stage = stage_id(config())
    assert not store.is_done(stage)
    assert finished(store, config()) == stage
    assert store.is_done(stage)
    assert store.result(stage)["val"] == {"top1": 0.5}


@pytest.mark.parametrize("name", ["result.json", "config.json"])
@pytest.mark.parametrize("content", ['{"stage": "', "[]", "", '{"stage": "x"}'])
def test_damaged_files_are_reported_moved_aside_and_never_read(tmp_path, capsys, name, content):
    store = Store(tmp_path)
    stage = finished(store, config())
    (store.folder(stage) / name).write_text(content)
    with pytest.raises(Damaged, match=name) as damage:
        store.result(stage)
    store.set_aside(stage, str(damage.value))
    assert not store.is_done(stage)
    assert (store.folder(stage) / "result.json.damaged-1").exists()
    assert "damaged-1" in capsys.readouterr().err
    assert finished(store, config()) == stage
    assert store.result(stage)["status"] == "done"


@pytest.mark.parametrize(
    "wrong",
    [{"timing": None}, {"timing": {"gpu_seconds": "1"}}, {"val": 0.5}, {"test": {"top1": "high"}},
     {"counts": []}, {"epochs": [1]}],
)  # fmt: skip
def test_a_result_of_another_shape_is_damaged(tmp_path, wrong):
    store = Store(tmp_path)
    stage = finished(store, config(), {"status": "done", "timing": TIMING, **wrong})
    with pytest.raises(Damaged, match=next(iter(wrong))):
        store.result(stage)


def test_a_changed_result_is_damaged_whatever_bit_was_flipped(tmp_path):
    store = Store(tmp_path)
    stage = finished(store, config())
    path = store.folder(stage) / "result.json"
    original = path.read_bytes()
    result = store.result(stage)
    for place in range(len(original)):
        for bit in range(8):
            flipped = bytearray(original)
            flipped[place] ^= 1 << bit
            path.write_bytes(flipped)
            with contextlib.suppress(Damaged):
                assert store.result(stage) == result  # the bit was in white space


def test_a_result_of_an_older_version_without_digests_is_read(tmp_path):
    store = Store(tmp_path)
    stage = finished(store, config())
    path = store.folder(stage) / "result.json"
    result = json.loads(path.read_text())
    del result["sha256"], result[CORRECT_DIGEST]
    path.write_text(json.dumps(result))
    assert store.result(stage) == result


def test_a_result_has_the_digest_of_the_file_with_the_correct_predictions(tmp_path):
    store = Store(tmp_path)
    stage = stage_id(config())
    folder = store.prepare(stage, config())
    (folder / "correct.npz").write_bytes(b"bits")
    finished(store, config())
    assert store.result(stage)[CORRECT_DIGEST] == store.correct_digest(stage)
    (folder / "correct.npz").write_bytes(b"bitz")
    assert store.result(stage)[CORRECT_DIGEST] != store.correct_digest(stage)


def place(kind, path, outside):
    """Put something else in the place of a file or folder of a stage."""
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "file":
        path.write_text("")
    else:
        path.symlink_to(outside if kind == "link" else outside / "nowhere")


@pytest.mark.parametrize("kind", ["folder", "pipe", "link", "dangling link"])
@pytest.mark.parametrize("name", ["result.json", "config.json"])
def test_anything_but_a_regular_file_in_its_place_is_damage(tmp_path, name, kind):
    store = Store(tmp_path / "store")
    stage = finished(store, config())
    valid_copy = tmp_path / "copy.json"
    valid_copy.write_bytes((store.folder(stage) / name).read_bytes())
    place(kind, store.folder(stage) / name, valid_copy)
    with pytest.raises(Damaged, match=name):
        store.result(stage)
    store.set_aside(stage, "damaged")
    assert finished(store, config()) == stage
    assert store.result(stage)["status"] == "done"


STAGE_FILES = (
    "attempts.jsonl", "metrics.jsonl", "provenance.json", "correct.npz", "checkpoint", "failures",
    "checkpoint/final.pt", "checkpoint/step-00000001.pt", "failures/001.json",
)  # fmt: skip


@pytest.mark.parametrize("kind", ["folder", "file", "pipe", "link", "dangling link"])
@pytest.mark.parametrize("name", STAGE_FILES)
def test_links_and_entries_of_a_wrong_kind_are_moved_out_of_a_claimed_stage(tmp_path, name, kind):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "step-00000001.pt").write_text("precious")
    store, stage = Store(tmp_path / "store"), stage_id(config())
    path = store.prepare(stage, config()) / name
    path.parent.mkdir(exist_ok=True)
    place(kind, path, outside)
    is_right = kind == ("folder" if "." not in name else "file")
    store.failures(stage)
    store.clean(stage)
    assert os.path.lexists(path) == is_right
    assert [p.read_text() for p in outside.iterdir()] == ["precious"]
    assert len(store.damaged_files({stage})) == (not is_right)
    store.clean(stage)
    assert len(store.damaged_files({stage})) == (not is_right)


def test_a_stage_that_is_a_link_to_another_place_is_moved_aside(tmp_path):
    store, other = Store(tmp_path / "store"), Store(tmp_path / "other")
    stage = finished(other, config())
    store.folder(stage).parent.mkdir(parents=True)
    store.folder(stage).symlink_to(other.folder(stage))
    assert store.ids() == {stage}
    with pytest.raises(Damaged, match="is a link"):
        store.result(stage)
    before = sorted(other.folder(stage).iterdir())
    store.prepare(stage, config())
    store.record_failure(stage, {"class": "code", "message": "m"})
    assert sorted(other.folder(stage).iterdir()) == before
    assert len(store.damaged_files({stage})) == 1


def test_no_writer_follows_a_link_or_fills_a_pipe(tmp_path):
    (tmp_path / "outside").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "outside")
    os.mkfifo(tmp_path / "pipe")
    for name, kind in (("link", "a link"), ("pipe", "not a regular file")):
        with pytest.raises(CannotWrite, match=f"{name}: it is {kind}"):
            append_line(tmp_path / name, {"a": 1})
    atomic_write(tmp_path / "link", b"new")
    assert (tmp_path / "outside").read_text() == "precious"
    assert not (tmp_path / "link").is_symlink()


READ = """
import sys
from pathlib import Path
from harness.store.store import Store
try:
    Store(Path(sys.argv[1])).result(sys.argv[2])
except Exception as error:
    print(type(error).__name__, error)
"""


def test_a_file_that_nobody_may_read_is_damage_and_one_that_others_may_read_is_not(tmp_path):
    """Root may read every file, so the process that reads runs without that capability."""
    store = Store(tmp_path)
    stage = finished(store, config())
    outcomes = {}
    for mode in (0o000, 0o044):
        (store.folder(stage) / "result.json").chmod(mode)
        outcomes[mode] = subprocess.run(
            ["setpriv", "--bounding-set=-dac_override,-dac_read_search", sys.executable, "-c", READ,
             str(tmp_path), stage],
            capture_output=True, text=True, timeout=300, check=True,
        ).stdout  # fmt: skip
    assert outcomes[0o000].startswith("Damaged")
    assert "mode 000" in outcomes[0o000]
    assert outcomes[0o044].startswith("PermissionError")


def test_a_damaged_record_of_a_failure_is_listed_among_the_others(tmp_path):
    store = Store(tmp_path)
    stage = stage_id(config())
    folder = store.prepare(stage, config()) / "failures"
    store.record_failure(stage, {"class": "code", "message": "first"})
    (folder / "002.json").write_text("")
    (folder / "003.json").write_text('{"a": 1}')
    store.record_failure(stage, {"class": "code", "message": "last"})
    classes = [record["class"] for record in store.failures(stage)]
    assert classes == ["code", "unreadable", "unreadable", "code"]
    assert sorted(path.name for path in folder.iterdir()) == [
        "001.json", "002.json", "003.json", "004.json",
    ]  # fmt: skip


def test_a_record_of_a_failure_is_whole_or_absent(tmp_path):
    store = Store(tmp_path)
    stage = stage_id(config())
    store.prepare(stage, config())
    with pytest.raises(ValueError, match="JSON"):
        store.record_failure(stage, {"class": "code", "message": "x", "loss": float("nan")})
    assert not list((store.folder(stage) / "failures").iterdir())


@pytest.mark.parametrize(
    ("name", "is_own"),
    [("sweeps/mine/logs/a/1_0_log.out", True), ("/etc/passwd", False), ("stages/x", False),
     ("sweeps/mine/logs/../../../../x", False), ("sweeps/mine/trials.jsonl", False), (7, False),
     ("", False), (None, False), ("x\0y", False), ("sweeps/mine/logs/link", False)],
)  # fmt: skip
def test_only_a_path_among_the_logs_of_the_store_is_a_log(tmp_path, name, is_own):
    logs = tmp_path / "sweeps" / "mine" / "logs"
    logs.mkdir(parents=True)
    (logs / "link").symlink_to("/etc/passwd")
    path = str(tmp_path / name) if isinstance(name, str) and name else name
    assert (Store(tmp_path).own_log(path) is not None) is is_own


def test_looking_at_a_claim_changes_nothing(tmp_path):
    store = Store(tmp_path)
    folder = store.prepare(stage_id(config()), config())
    claim = try_claim(folder, "test")
    before = folder.stat().st_mtime_ns
    assert look(folder).live
    assert folder.stat().st_mtime_ns == before
    claim.release()


@pytest.mark.parametrize("path", ["file/x/store", "x" * 300])
def test_a_path_that_cannot_be_a_store_gets_a_sentence(tmp_path, path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="store=PATH"):
        Store(tmp_path / path)


def test_a_result_with_the_config_of_another_stage_is_damaged(tmp_path):
    store = Store(tmp_path)
    stage = finished(store, config())
    other = config(seed=7).model_dump(mode="json")
    (store.folder(stage) / "config.json").write_text(json.dumps(other))
    with pytest.raises(Damaged, match="does not match its stage"):
        store.result(stage)


def test_a_worker_that_lost_its_claim_cannot_write_a_result(tmp_path):
    store = Store(tmp_path)
    stage = stage_id(config())
    claim = try_claim(store.prepare(stage, config()), "test")
    claim.path.unlink()
    with pytest.raises(ClaimLost):
        store.finish(stage, claim, {"status": "done"})
    assert not store.is_done(stage)


@pytest.mark.parametrize("name", ["../outside", "/abs", "a/b", "", ".hidden", "x" * 200, "a\nb"])
def test_names_cannot_leave_the_store(tmp_path, name):
    with pytest.raises(UserError):
        Store(tmp_path).sweep_folder(name)
    with pytest.raises(ValueError, match="stage id"):
        Store(tmp_path).folder(name)


@pytest.mark.parametrize("linked", ["mine", "mine/logs"])
def test_a_sweep_that_is_a_link_to_another_place_is_refused(tmp_path, linked):
    link = tmp_path / "store" / "sweeps" / linked
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path)
    with pytest.raises(UserError, match="is a link"):
        Store(tmp_path / "store").sweep_folder("mine")


@pytest.mark.parametrize("prefix", ["", "/old/sweeps/place/", "{store}/"])
def test_a_log_is_found_where_the_store_is_now(tmp_path, prefix):
    log = tmp_path / "sweeps" / "sweeps" / "logs" / "a" / "1_0_log.out"
    log.parent.mkdir(parents=True)
    log.touch()
    store = Store(tmp_path)
    assert store.own_log(prefix.format(store=tmp_path) + store.relative(log)) == log


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from harness.files import CannotWrite, atomic_write
path = Path(sys.argv[1])
atomic_write(path, b"old")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    atomic_write(path, b"n" * 5000)
except CannotWrite as error:
    print(error)
"""


def test_a_failed_write_leaves_the_old_file_and_no_temporary_file(tmp_path):
    process = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path / "file")],
        capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    assert "File too large" in process.stdout
    assert "Nothing that was finished is lost" in process.stdout
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_the_errors_of_full_and_read_only_disks_are_sentences_with_the_path(tmp_path):
    for number, words in ((errno.ENOSPC, "disk is full"), (errno.EROFS, "read-only")):
        with (
            pytest.raises(CannotWrite, match=f"x: .*{words}.*Nothing that was finished is lost"),
            files.explained(tmp_path / "x"),
        ):
            raise OSError(number, os.strerror(number))


def test_an_incomplete_line_does_not_affect_the_other_lines(tmp_path):
    path = tmp_path / "lines.jsonl"
    append_line(path, {"a": 1})
    with path.open("ab") as file:
        file.write(b'{"torn": ')
    append_line(path, {"b": 2})
    assert read_lines(path) == [{"a": 1}, {"b": 2}]


def test_an_atomic_write_replaces_the_content(tmp_path):
    atomic_write(tmp_path / "f", b"1")
    atomic_write(tmp_path / "f", b"2")
    assert (tmp_path / "f").read_bytes() == b"2"


def test_failures_are_numbered_and_kept(tmp_path):
    store = Store(tmp_path)
    stage = stage_id(config())
    for message in ("one", "two"):
        store.record_failure(stage, {"class": "code", "message": message})
    assert [f["message"] for f in store.failures(stage)] == ["one", "two"]

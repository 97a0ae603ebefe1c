"""Checkpoints: when they are written, and what counts where one is damaged."""

import contextlib
import functools
import operator
import os
import random
import tempfile
from pathlib import Path

import pytest
import torch

from harness.errors import UserError
from harness.files import Damaged
from harness.store.records import Record
from harness.train import checkpoint


def test_a_checkpoint_is_written_when_it_is_due_and_two_are_kept(stages):
    config = stages.toy()
    seen = []
    (outcome,) = stages.train(
        config, beat=lambda: seen.append(stages.saved(config)), checkpoint_seconds=1e-9
    )
    assert outcome.status == "done"
    assert seen[:4] == [
        [],
        ["step-00000001.pt"],
        ["step-00000001.pt", "step-00000002.pt"],
        ["step-00000002.pt", "step-00000003.pt"],
    ]
    assert stages.saved(config) == ["final.pt"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "harm",
    ["truncated", "flipped", "foreign", "code", "folder", "link", "pipe", "other step", "empty",
     "engine.optimizer.param_groups", "engine.model", "loss_sums", "judging_sum"],
)  # fmt: skip
def test_a_damaged_checkpoint_is_moved_aside_and_the_one_before_is_used(
    stages, others, harm, capsys, make_code
):
    config, other = stages.toy(), stages.toy({"model.width": 0.5})
    expected = others.record(config, *others.train(config))
    stages.train_for(3, config)
    stages.train_for(2, config)
    ran = stages.root / "ran"
    newest = stages.folder(config) / "checkpoint" / "step-00000005.pt"
    data = newest.read_bytes()
    if harm == "truncated":
        newest.write_bytes(data[: len(data) // 2])
    elif harm == "flipped":
        middle = len(data) // 2
        newest.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    elif harm == "foreign":
        stages.train_for(5, other)
        newest.write_bytes((stages.folder(other) / "checkpoint" / newest.name).read_bytes())
    elif harm == "other step":
        newest.write_bytes(newest.with_name("step-00000003.pt").read_bytes())
    elif harm == "link":
        newest.rename(stages.root / "elsewhere.pt")
        newest.symlink_to(stages.root / "elsewhere.pt")
    elif harm in ("folder", "pipe"):
        newest.unlink()
        newest.mkdir() if harm == "folder" else os.mkfifo(newest)
    elif harm != "code":  # a part of the state is missing, or all of it
        value = torch.load(newest)
        *outer, last = ["state", *harm.split(".")]
        part = functools.reduce(operator.getitem, outer, value)
        part.clear() if harm == "empty" else part.pop(last)
        torch.save(value, newest)
    else:
        head = {"stage": stages.member(config).stage_id, "step": 5}
        torch.save({**head, "world_size": 1, "sharded": False, "state": make_code(ran)}, newest)
    (outcome,) = stages.train(config)
    assert stages.record(config, outcome) == expected
    stderr = capsys.readouterr().err
    assert str(newest) in stderr
    assert "weights_only" not in stderr
    assert "moved to step-00000005.pt.damaged-1" in stderr
    assert stages.saved(config) == ["final.pt", "step-00000005.pt.damaged-1"]
    assert not ran.exists()


def test_no_flipped_bit_changes_what_is_read(tmp_path):
    path, state = tmp_path / "step-00000003.pt", {"weights": [1.5, None, True], "name": "fc"}
    checkpoint.write(path, {"stage": "a", "state": state})
    data = path.read_bytes()
    generator = random.Random(0)
    for place in range(len(data)):
        flipped = data[place] ^ 1 << generator.randrange(8)
        path.write_bytes(data[:place] + bytes([flipped]) + data[place + 1 :])
        with contextlib.suppress(Damaged):  # the archive has bytes that mean nothing
            assert checkpoint.read(path, "a", Record)["state"] == state


def test_without_a_whole_checkpoint_a_stage_begins_again(stages, others, capsys):
    config = stages.toy()
    stages.train_for(3, config)
    (stages.folder(config) / "checkpoint" / "step-00000003.pt").write_bytes(b"")
    assert stages.record(config, *stages.train(config)) == others.record(
        config, *others.train(config)
    )
    assert capsys.readouterr().err.count("moved to") == 1


@pytest.mark.parametrize("harm", ["file", "link"])
def test_a_checkpoint_folder_that_is_none_is_moved_aside(stages, others, harm):
    config = stages.toy()
    folder = stages.folder(config) / "checkpoint"
    outside = stages.root / "outside"
    outside.mkdir()
    (outside / "step-00000003.pt").write_bytes(b"of somebody else")
    folder.symlink_to(outside) if harm == "link" else folder.write_bytes(b"")
    assert stages.record(config, *stages.train(config)) == others.record(
        config, *others.train(config)
    )
    assert (outside / "step-00000003.pt").read_bytes() == b"of somebody else"
    assert folder.with_name("checkpoint.damaged-1").is_symlink() == (harm == "link")


def test_entries_that_are_not_files_keep_no_stage_from_its_end(stages, others):
    """A folder in the place of an old step, and one in the place of the final weights."""
    config = stages.toy()
    stages.train_for(3, config)
    folder = stages.folder(config) / "checkpoint"
    for name in ("step-00000001.pt", "step-3.pt", "step-٠٠٠٠٠٠٠٩.pt", "final.pt", ".x.tmp"):
        (folder / name).mkdir()
    assert stages.record(config, *stages.train(config, checkpoint_seconds=1e-9)) == others.record(
        config, *others.train(config)
    )
    assert (folder / "final.pt.damaged-1").is_dir()


def test_a_checkpoint_that_nobody_may_read_is_damaged():
    with tempfile.TemporaryDirectory() as folder:  # any user can reach it, unlike tmp_path
        Path(folder).chmod(0o755)
        path = Path(folder) / "step-00000003.pt"
        checkpoint.write(path, {"stage": "a"})
        path.chmod(0)
        user = os.geteuid()
        try:
            if user == 0:
                os.seteuid(65534)  # root may read everything
            with pytest.raises(Damaged, match="cannot be read"):
                checkpoint.read(path, "a", Record)
        finally:
            os.seteuid(user)


def test_a_parents_weights_that_cannot_be_trusted_are_named(stages):
    dense = stages.toy()
    child = stages.child(dense)
    final = stages.folder(dense) / "checkpoint" / "final.pt"
    with pytest.raises(Damaged, match=f"{final} is missing"):
        stages.train(child)
    stages.train(dense)
    whole = final.read_bytes()
    final.write_bytes(whole[:-100])
    with pytest.raises(Damaged, match=f"{final} is damaged"):
        stages.train(child)
    stages.train(stages.toy({"seed": 1}))
    final.write_bytes(
        (stages.folder(stages.toy({"seed": 1})) / "checkpoint" / "final.pt").read_bytes()
    )
    with pytest.raises(Damaged, match=f"{final} is a checkpoint of stage"):
        stages.train(child)


def test_a_sharded_checkpoint_goes_on_sharded_only(stages):
    config = stages.toy()
    stages.train_for(3, config, engine="deepspeed", zero_stage=1)
    for run in ({"engine": "ddp"}, {"engine": "deepspeed"}):
        with pytest.raises(UserError, match=r"saved under ZeRO 1 .* delete that checkpoint"):
            stages.train(config, **run)
    assert stages.saved(config) == ["step-00000003.pt"]  # it is not damaged
    assert stages.train(config, engine="deepspeed", zero_stage=1)[0].status == "done"

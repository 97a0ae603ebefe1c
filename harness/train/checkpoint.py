"""Checkpoints of a stage, written atomically: the last two while it trains, its weights after.

    checkpoint/step-00000123.pt          what every rank needs (one file; rank 0 writes); the last
                                         one stays in a trunk stage that others continue
    checkpoint/step-00000123.rank1.pt    ZeRO 1: one more file per rank, its optimizer shard
    checkpoint/final.pt                  {"stage", "model", "masks"}: what children start from
                                         (and "rewind": early weights, where children rewind)

Files hold tensors and plain values and are read with `weights_only`: none can run code. They are
zip archives as `torch.save` makes them. Reading checks the CRC of every entry, which `torch.load`
does not do: it loaded 354 of 400 files with one flipped bit.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import pickle
import zipfile
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field

from harness.errors import UserError
from harness.files import Damaged, atomic_write, make_folder, move_aside
from harness.store.records import Count, Record, Seconds, check, misplaced, read_bytes
from harness.store.store import Continued, checkpoint_steps
from harness.train.distributed import World

KEPT = 2
Tensors = Annotated[dict[str, Any], Field(min_length=1)]
Loss = Annotated[float, Field(allow_inf_nan=True)]  # of a stage that is about to diverge


class _Optimizer(Record):
    state: dict[Any, Any]
    param_groups: list[dict[str, Any]]


class _Engine(Record):
    model: Tensors
    optimizer: _Optimizer


class _State(Record):
    """What `Stage.save` writes. A state of another version may lack a key."""

    engine: _Engine
    masks: dict[str, Any] | None
    loss_sums: Annotated[list[Loss], Field(min_length=1)]
    last_loss: float | None
    val_before: dict[str, Any] | None
    rewind: Tensors | None
    rewound: bool
    macs_sum: Count
    judging_sum: Count
    seconds: Seconds
    continued: Continued | None = None


class _Step(Record):
    step: Count
    world_size: Count
    sharded: bool
    state: dict[str, Any]


class _Final(Record):
    model: Tensors
    masks: dict[str, Any] | None


def load_tensors(data: bytes) -> Any:
    """Return the tensors and plain values in the bytes of a file of `torch.save`, on the CPU.

    Raises:
        ValueError: they are not such a file, or hold other objects, which could run code.
    """
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # torch's own message advises to run the code
        raise ValueError(
            "it is not a file of tensors and plain values only; other objects could run code, so "
            "they are not read"
        ) from error


def write(path: Path, value: dict[str, Any]) -> None:
    """Write atomically. Raises CannotWrite."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    make_folder(path.parent)
    atomic_write(path, buffer.getvalue())


def read(path: Path, stage: str, model: type[Record], follow_links: bool = False) -> dict[str, Any]:
    """Return what `write` wrote for `stage`, with the keys of `model`, on the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        Damaged: the file is truncated, altered, of another stage, or not a checkpoint; or it cannot
            be read (`records.read_bytes`).
    """
    data = read_bytes(path, follow_links)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if (entry := archive.testzip()) is not None:
                raise ValueError(f"the checksum of its {entry} is wrong")
        value = load_tensors(data)
    except MemoryError:
        raise
    except Exception as error:  # zipfile, zlib and torch raise many kinds for damaged bytes
        reason = str(error).strip().splitlines()
        raise Damaged(f"{path} is damaged ({reason[0] if reason else error!r})") from error
    if not isinstance(value, dict):
        raise Damaged(f"{path} is not a checkpoint")
    if value.get("stage") != stage:
        raise Damaged(f"{path} is a checkpoint of stage {value.get('stage')}, not of {stage}")
    check(path, value, model)
    return value


def _read_step(path: Path, stage: str, step: int) -> dict[str, Any]:
    """Return a checkpoint of `step`. Raises as `read` does."""
    value = read(path, stage, _Step)
    if value["step"] != step:
        raise Damaged(f"{path} is a checkpoint of step {value['step']}")
    return value


def _file(folder: Path, step: int, rank: int = 0) -> Path:
    suffix = f".rank{rank}" if rank else ""
    return folder / "checkpoint" / f"step-{step:08d}{suffix}.pt"


def save(
    folder: Path, stage: str, step: int, state: dict[str, Any], world: World, sharded: bool
) -> None:
    """Save every rank's part, rank 0's last: its file marks a complete checkpoint."""
    about = {"stage": stage, "step": step, "world_size": world.size, "sharded": sharded}
    value = {**about, "state": state}
    if sharded and world.rank > 0:
        write(_file(folder, step, world.rank), value)
    world.gather(None)  # wait until the parts of all other ranks are written
    if world.rank == 0:
        write(_file(folder, step), value)
        for old in checkpoint_steps(folder)[KEPT:]:
            _remove(_file(folder, old))  # first, or the checkpoint seems complete
            for part in (folder / "checkpoint").glob(f"step-{old:08d}.rank*.pt"):
                _remove(part)


def load_newest(
    folder: Path, stage: str, world: World, sharded: bool
) -> tuple[int, dict[str, Any]] | None:
    """Return step and state of the newest complete checkpoint, or None if there is none.

    All ranks return the same step. A damaged checkpoint is moved aside with a message on stderr,
    and the one before it is used.

    Raises:
        UserError: a ZeRO 1 checkpoint of another number of ranks, or a checkpoint that is sharded
            where this engine's are not, or the reverse.
    """
    if world.rank == 0:
        checkpoints = folder / "checkpoint"
        if problem := misplaced(checkpoints, is_folder=True):
            move_aside(checkpoints, problem)
        for partial in checkpoints.glob(".*.tmp"):  # of a process that was killed
            _remove(partial)
    for step in world.broadcast(checkpoint_steps(folder)):
        state, problems = _read_state(folder, stage, step, world, sharded)
        if not problems:
            return step, state
        if world.rank == 0:
            move_aside(_file(folder, step), problems[0])
    return None


def load_end(folder: Path, stage: str, step: int, world: World, sharded: bool) -> dict[str, Any]:
    """Return the state that a finished stage of `step` steps has kept for one that continues it.

    Raises, on all ranks:
        Damaged: the checkpoint is damaged or missing.
        UserError: as of `load_newest`.
    """
    state, problems = _read_state(folder, stage, step, world, sharded)
    if problems:
        raise Damaged(problems[0])
    return state


def _read_state(
    folder: Path, stage: str, step: int, world: World, sharded: bool
) -> tuple[dict[str, Any], list[str]]:
    """Return this rank's state at `step`, and what is wrong with the files of any of the ranks."""
    path = _file(folder, step)
    value: dict[str, Any] = {}
    problem = ""
    try:
        value = _read_step(path, stage, step)
        if value["sharded"] != sharded or (sharded and value["world_size"] != world.size):
            raise UserError(_cannot_continue(path, value, world, sharded))
        if sharded and world.rank:
            value = _read_step(_file(folder, step, world.rank), stage, step)
        check(path, value["state"], _State)
    except (Damaged, OSError) as error:
        problem = str(error)
    return value.get("state", {}), [text for text in world.gather(problem) if text]


def _cannot_continue(path: Path, value: dict[str, Any], world: World, sharded: bool) -> str:
    """Return the error message for a checkpoint that another kind of engine has saved."""
    saved = (
        f"under ZeRO 1 by {value['world_size']} process(es), each with its part of the optimizer"
        if value["sharded"]
        else "with the whole optimizer in it"
    )
    now = f"ZeRO 1 with {world.size} process(es)" if sharded else "an engine without ZeRO 1"
    return (
        f"the checkpoint {path} was saved {saved}, and cannot continue under {now}: set "
        "run.engine, run.zero_stage and run.processes as they were, or delete that checkpoint "
        "folder to start the stage again."
    )


def write_final(
    folder: Path,
    stage: str,
    model: dict[str, torch.Tensor],
    masks: dict[str, Any] | None,
    rewind: dict[str, torch.Tensor] | None = None,
) -> None:
    """Write the final weights, packed masks, and the early weights that children rewind to."""
    weights = {name: tensor.cpu() for name, tensor in model.items()}
    value = {"stage": stage, "model": weights, "masks": masks}
    if rewind is not None:
        value["rewind"] = rewind
    path = folder / "checkpoint" / "final.pt"
    if problem := misplaced(path):
        move_aside(path, problem)
    write(path, value)


def read_final(folder: Path, stage: str, follow_links: bool = False) -> dict[str, Any]:
    """Return `{"model", "masks"}` of a finished stage. Raises Damaged, also for a missing file."""
    path = folder / "checkpoint" / "final.pt"
    try:
        return read(path, stage, _Final, follow_links)
    except OSError as error:
        is_missing = isinstance(error, FileNotFoundError)
        reason = "is missing" if is_missing else f"cannot be read ({error.strerror})"
        raise Damaged(f"{path} {reason}") from error


def drop_steps(folder: Path, keeps_last: bool = False) -> None:
    """Delete the checkpoints that only an unfinished stage needs.

    `keeps_last` keeps the last step of a stage that others continue.
    """
    kept = checkpoint_steps(folder)[:1] if keeps_last else []
    for path in (folder / "checkpoint").glob("step-*.pt"):
        if not any(path.name.startswith(f"step-{step:08d}.") for step in kept):
            _remove(path)


def _remove(path: Path) -> None:
    """Delete a file that is not needed; one that cannot be deleted only takes space."""
    with contextlib.suppress(OSError):
        path.unlink()


def weights_hash(model: dict[str, torch.Tensor]) -> str:
    """Return the SHA-256 (hex) over names and bytes of a state dict on any device."""
    sha = hashlib.sha256()
    for name, tensor in sorted(model.items()):
        sha.update(name.encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        sha.update(flat.view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()

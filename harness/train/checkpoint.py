"""Checkpoints of a stage: whole or absent, the last two kept while it trains, its weights after.

    checkpoint/step-00000123.pt          what every rank needs (one file; rank 0 writes)
    checkpoint/step-00000123.rank1.pt    ZeRO 1: one more file per rank, its optimizer shard
    checkpoint/final.pt                  {"model", "masks"}: what children start from

Files hold tensors and plain values and are read with `weights_only`: none can run code.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import re
from pathlib import Path
from typing import Any

import torch

from harness.errors import UserError
from harness.store.files import Damaged, atomic_write, make_folder, move_aside
from harness.train.distributed import World

KEPT = 2
STEP = re.compile(r"step-(\d+)\.pt")


def write(path: Path, value: dict[str, Any]) -> str:
    """Write atomically; returns the SHA-256 (hex) of the bytes."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    data = buffer.getvalue()
    make_folder(path.parent)
    atomic_write(path, data)
    return hashlib.sha256(data).hexdigest()


def read(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read what `write` wrote. Raises FileNotFoundError, or Damaged."""
    data = path.read_bytes()
    try:
        value = torch.load(io.BytesIO(data), map_location=device, weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError, OSError) as error:
        reason = str(error).strip().splitlines()
        raise Damaged(f"{path} is damaged ({reason[0] if reason else error!r})") from error
    if not isinstance(value, dict):
        raise Damaged(f"{path} holds no checkpoint")
    return value


def _file(folder: Path, step: int, rank: int = 0) -> Path:
    suffix = f".rank{rank}" if rank else ""
    return folder / "checkpoint" / f"step-{step:08d}{suffix}.pt"


def steps(folder: Path) -> list[int]:
    """Steps at which the stage was saved, newest first."""
    found = [STEP.fullmatch(path.name) for path in (folder / "checkpoint").glob("step-*.pt")]
    return sorted((int(match[1]) for match in found if match), reverse=True)


def save(
    folder: Path, stage: str, step: int, state: dict[str, Any], world: World, sharded: bool
) -> None:
    """Save every rank's part; rank 0's comes last, for its name is what `steps` goes by."""
    head = {"stage": stage, "step": step, "world_size": world.size, "sharded": sharded}
    if sharded and world.rank > 0:
        write(_file(folder, step, world.rank), {**head, "state": state})
    world.gather(None)  # nobody's part is missing when rank 0's appears
    if world.rank == 0:
        write(_file(folder, step), {**head, "state": state})
        for old in steps(folder)[KEPT:]:
            remove(folder, old)


def remove(folder: Path, step: int) -> None:
    """Delete a step's files, rank 0's first, so that no half of it is found."""
    _file(folder, step).unlink(missing_ok=True)
    for part in (folder / "checkpoint").glob(f"step-{step:08d}.rank*.pt"):
        part.unlink(missing_ok=True)


def load_newest(
    folder: Path, stage: str, world: World, sharded: bool
) -> tuple[int, dict[str, Any]] | None:
    """Step and state of the newest whole checkpoint, the same on all ranks; None where none is.

    A damaged one is moved aside with a sentence, and the one before it is used.

    Raises:
        UserError: a ZeRO 1 checkpoint of another number of ranks, or of another kind of engine.
    """
    for step in world.broadcast(steps(folder)):
        path = _file(folder, step, world.rank if sharded else 0)
        value: dict[str, Any] = {}
        problem = ""
        try:
            value = read(path, world.device)
            if value.get("stage") != stage or value.get("step") != step or "state" not in value:
                problem = f"{path} is not of stage {stage} at step {step}"
        except (Damaged, FileNotFoundError) as error:
            problem = str(error)
        problems = [said for said in world.gather(problem) if said]
        if problems:
            if world.rank == 0:
                move_aside(_file(folder, step), problems[0])
            continue
        if value["sharded"] != sharded or (sharded and value["world_size"] != world.size):
            saved = (
                f"under ZeRO 1 by {value['world_size']} processes" if value["sharded"] else "whole"
            )
            raise UserError(
                f"the checkpoint {path} was saved {saved} and cannot go on under "
                f"run.zero_stage={int(sharded)} with run.processes={world.size}: launch with what "
                "it was begun with, or delete that stage's checkpoint folder to begin it again."
            )
        return step, value["state"]
    return None


def finish(folder: Path, model: dict[str, torch.Tensor], masks: dict[str, Any] | None) -> str:
    """Write the final weights, drop the rest; returns the SHA-256 over the weights' bytes."""
    write(folder / "checkpoint" / "final.pt", {"model": model, "masks": masks})
    for step in steps(folder):
        remove(folder, step)
    return weights_hash(model)


def read_final(folder: Path) -> dict[str, Any]:
    """`{"model", "masks"}` of a finished stage. Raises Damaged, also where the file is absent."""
    path = folder / "checkpoint" / "final.pt"
    try:
        value = read(path)
    except FileNotFoundError as error:
        raise Damaged(f"{path} is missing") from error
    if "model" not in value or "masks" not in value:
        raise Damaged(f"{path} holds no final weights")
    return value


def weights_hash(model: dict[str, torch.Tensor]) -> str:
    """SHA-256 (hex) over names and bytes of a state dict, whatever device it is on."""
    sha = hashlib.sha256()
    for name, tensor in sorted(model.items()):
        sha.update(name.encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        sha.update(flat.view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()

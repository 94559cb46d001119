"""A run's checkpoints, seen from outside: whole or damaged, being written or being stored."""

import hashlib
import json
import random
from enum import StrEnum
from pathlib import Path

from qa_ray.storage.checkpoint_store import MANIFEST
from qa_ray.storage.run_folder import CHECKPOINTS, MODEL, checkpoint_name


class Damage(StrEnum):
    """What happens to a checkpoint's weights."""

    FLIPPED = "one bit flipped"
    CUT = "cut in half"
    REMOVED = "removed"


class Stage(StrEnum):
    """What is being done with a checkpoint."""

    WRITING = "writing"
    """It is written to the worker's disk."""
    STORING = "storing"
    """It is copied to the run's storage; training goes on meanwhile."""


def is_whole(checkpoint: Path) -> bool | None:
    """Whether every file of a checkpoint is what its manifest says; None if the checkpoint is not there any more."""
    try:
        files = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))["files"]
        return all(_sha256(checkpoint / name) == entry["sha256"] for name, entry in files.items())
    except FileNotFoundError:
        # A file that is missing is damage; a checkpoint that is gone as a whole has been pruned.
        return False if (checkpoint / MANIFEST).exists() else None


def newest_whole(run: Path) -> int:
    """Step of the newest checkpoint that is whole; 0 if there is none."""
    return max((_step_of(path) for path in (run / CHECKPOINTS).glob("step-*") if is_whole(path)), default=0)


def damage_newest(run: Path, kind: Damage, rng: random.Random) -> bool:
    """Damage the newest whole checkpoint, if there is one."""
    step = newest_whole(run)
    if not step:
        return False
    weights = run / CHECKPOINTS / checkpoint_name(step) / MODEL / "model.safetensors"
    content = bytearray(weights.read_bytes())
    if kind is Damage.FLIPPED:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    weights.unlink()
    if kind is not Damage.REMOVED:
        weights.write_bytes(content if kind is Damage.FLIPPED else content[: len(content) // 2])
    return True


def under_way(run: Path, temporary: Path) -> Stage | None:
    """What is being done with a checkpoint of a run now, whose workers keep temporary files in `temporary`."""
    # Each job has a folder of its own there.
    for staged in temporary.glob("qa_ray-*/*/step-*"):
        stored = run / CHECKPOINTS / checkpoint_name(_step_of(staged))
        if not stored.exists():
            return Stage.WRITING
        if not (stored / MANIFEST).exists():
            return Stage.STORING
    return None


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.split("-")[1])


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

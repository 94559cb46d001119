"""A run's checkpoints, seen from outside: whole or damaged, being written or being stored."""

import hashlib
import json
import random
from enum import StrEnum
from pathlib import Path

from qa_ray.storage.checkpoint_store import MANIFEST
from qa_ray.storage.run_folder import CHECKPOINTS, EVALUATION, MODEL, RunFolder, checkpoint_name
from qa_ray.storage.staging import staging_place

_HALF, _EVALUATED = ".part", "-evaluated"


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


def next_loaded(run: Path, temporary: Path) -> int:
    """Step from which the next group goes on: what waits on the worker's disk is stored first, if it adds something."""
    stored = [path for path in (run / CHECKPOINTS).glob("step-*") if (path / MANIFEST).exists()]
    newest = max(stored, key=_step_of, default=None)
    evaluated = newest is not None and (newest / EVALUATION).exists()
    least = (_step_of(newest), evaluated) if newest else (0, False)
    waiting = [path for path in _staged(run, temporary) if not path.name.endswith(_HALF)]
    added = [_step_of(path) for path in waiting if (_step_of(path), path.name.endswith(_EVALUATED)) > least]
    return max([newest_whole(run), *added])


def under_way(run: Path, temporary: Path) -> Stage | None:
    """What is being done with a checkpoint of a run now, whose workers keep temporary files in `temporary`."""
    for staged in _staged(run, temporary):
        if staged.name.endswith(_HALF):
            return Stage.WRITING
        if not (run / CHECKPOINTS / checkpoint_name(_step_of(staged)) / MANIFEST).exists():
            return Stage.STORING
    return None


def _staged(run: Path, temporary: Path) -> list[Path]:
    """A user's folder holds one for each run, and that one for each group of workers."""
    own = staging_place(RunFolder(str(run.parent), run.name))
    return list((temporary / own.parent.name / own.name).glob("*/step-*"))


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removesuffix(_HALF).split("-")[1])


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

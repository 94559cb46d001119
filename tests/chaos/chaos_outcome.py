"""What a run that was disturbed must leave: what an undisturbed one leaves, and what the batch plan alone foretells."""

import hashlib
import json
import random
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

from qa_ray.config.fine_tuning import Config
from qa_ray.data.batching import plan_epoch
from qa_ray.schema import Int64s
from qa_ray.storage.checkpoint_store import MANIFEST
from qa_ray.storage.layout import CHECKPOINTS, EVALUATION, MODEL, RESULT
from qa_ray.training.snapshot import enter

# They tell of the machine, not of the training.
_SPEEDS = ("time", "windows_per_second", "tokens_per_second", "peak_memory_gb")


class Damage(StrEnum):
    """What happens to a checkpoint's weights."""

    FLIPPED = "one bit flipped"
    CUT = "cut in half"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class Expected:
    """What the batch plan foretells."""

    batches: list[Int64s]
    """Window numbers of each step, in the order of steps."""
    ledger: str
    """Digest of them."""

    @classmethod
    def plan(cls, config: Config, lengths: Int64s) -> "Expected":
        """Plan all epochs of windows of these lengths.

        Raises:
            AssertionError: the plan itself leaves out a window, or has it twice.
        """
        batches: list[Int64s] = []
        for epoch in range(config.train.epochs):
            planned = plan_epoch(lengths, config.batch, seed=config.train.seed, epoch=epoch)
            if sorted(np.concatenate(list(planned.batches())).tolist()) != list(range(len(lengths))):
                raise AssertionError(f"the plan of epoch {epoch} does not hold every window once")
            batches += planned.batches()
        ledger = ""
        for batch in batches:
            ledger = enter(ledger, batch)
        return cls(batches, ledger)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a finished run left."""

    weights: str
    """SHA-256 of the file."""
    predictions: str
    metrics: list[dict[str, Any]]
    """All recorded but speeds and times."""
    ledger: str

    @classmethod
    def read(cls, run: Path) -> "Outcome":
        """Read it from a run's folder."""
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        return cls(
            _sha256(run / MODEL / "model.safetensors"),
            (run / EVALUATION / "predictions.json").read_text(encoding="utf-8"),
            [{name: value for name, value in line.items() if name not in _SPEEDS} for line in lines],
            json.loads((run / RESULT).read_text(encoding="utf-8"))["ledger"],
        )

    def differing(self, calm: "Outcome") -> list[str]:
        """Names of what is not as in the undisturbed run."""
        return [name for name in Outcome.__slots__ if getattr(self, name) != getattr(calm, name)]

    def wrong_windows(self, expected: Expected) -> int:
        """Windows that were lost or seen twice, going by the steps on record; at least 1 if the ledger is wrong."""
        recorded = Counter(line["step"] for line in self.metrics if line["phase"] == "train")
        steps = set(recorded) | set(range(1, len(expected.batches) + 1))
        wrong = 0
        for step in steps:
            size = len(expected.batches[step - 1]) if step <= len(expected.batches) else 1
            wrong += abs(recorded[step] - 1 if step <= len(expected.batches) else recorded[step]) * size
        return max(wrong, int(self.ledger != expected.ledger))


def name_of(step: int) -> str:
    """Name of the checkpoint at a step."""
    return f"step-{step:08d}"


def step_of(name: str) -> int:
    """Step of the checkpoint of a name, which may say more after it."""
    return int(name.split("-")[1])


def is_whole(checkpoint: Path) -> bool | None:
    """Whether every file of a checkpoint is what its manifest says; None if the checkpoint is not there any more."""
    try:
        files = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))["files"]
        for name, entry in files.items():
            path = checkpoint / name
            if path.stat().st_size != entry["size"] or _sha256(path) != entry["sha256"]:
                return False
    except FileNotFoundError:
        # A file that is missing is damage; a checkpoint that is gone as a whole has been pruned.
        return False if (checkpoint / MANIFEST).exists() else None
    return True


def newest_whole(run: Path) -> str | None:
    """Name of the newest checkpoint that is whole."""
    return max((path.name for path in (run / CHECKPOINTS).glob("step-*") if is_whole(path)), default=None)


def damage_newest(run: Path, kind: Damage, rng: random.Random) -> str | None:
    """Damage the newest whole checkpoint, and return its name; None if there is none."""
    name = newest_whole(run)
    if name is None:
        return None
    weights = run / CHECKPOINTS / name / MODEL / "model.safetensors"
    content = bytearray(weights.read_bytes())
    if kind is Damage.REMOVED:
        weights.unlink()
    elif kind is Damage.CUT:
        weights.write_bytes(content[: len(content) // 2])
    else:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        weights.write_bytes(content)
    return name


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

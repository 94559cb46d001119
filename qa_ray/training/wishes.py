"""What is asked of a run from outside while it trains; it needs no torch, since Ray's controller reads it too."""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol


class Phase(Enum):
    """Where a group of workers stands between its start and the start of the next one."""

    STARTING = auto()
    """It has not made a step."""
    TRAINING = auto()
    RESIZE_ASKED = auto()
    """It is to be ended once a checkpoint of its last step is stored."""
    RESIZE_SAVED = auto()
    """That checkpoint is stored, and no step is made after it."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is asked of the workers."""

    stop: bool = False
    """Save, and stop."""
    resize: bool = False
    """Save, and make no step: another number of workers goes on from there."""


class Outside(Protocol):
    """What the main process, and no other, asks and tells."""

    def wishes(self) -> Wishes:
        """What is asked of the workers now."""

    def preemption(self) -> object | None:
        """Which nodes are about to be taken away, if any: the same for all workers."""

    def saved(self) -> None:
        """Say that the checkpoint for a resize is stored."""

    def go_on(self) -> None:
        """Say that the workers do not wait for a resize any longer."""

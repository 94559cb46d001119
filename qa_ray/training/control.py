"""When a run is saved and when it stops in mid-epoch: decided by rank 0, and the same on every rank.

Ranks that disagreed would wait for each other for ever. They talk about it about once a second, not at every step.
"""

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from qa_ray.config.operation import CheckpointConfig

_SECONDS_BETWEEN_TALKS = 1.0


@dataclass(frozen=True, slots=True)
class Decision:
    """What happens between two steps."""

    save: bool = False
    urgent: bool = False
    """The checkpoint must be made, whatever else is under way."""
    stop: bool = False


class Control:
    """Decides between steps; every rank holds one and asks it after every step."""

    def __init__(
        self,
        config: CheckpointConfig,
        accelerator: Accelerator,
        *,
        stop_requested: Callable[[], bool],
        preemption: Callable[[], object | None],
    ) -> None:
        """Follow `config`.

        Args:
            config: when checkpoints are due.
            accelerator: joins the ranks.
            stop_requested: asked on the main process.
            preemption: asked on every rank at the same steps; says which nodes are about to be taken away, if any.
        """
        self._config = config
        self._accelerator = accelerator
        self._stop_requested = stop_requested
        self._preemption = preemption
        self._preempted: object | None = None
        self._saved_at = self._talked_at = time.monotonic()
        self._stride = self._steps_to_talk = 1

    def saved(self) -> None:
        """Count the time to the next checkpoint from now."""
        self._saved_at = time.monotonic()

    def __call__(self, step: int) -> Decision:
        """Decide what happens after optimizer step `step`."""
        every = self._config.every_steps
        due = every is not None and step % every == 0
        self._steps_to_talk -= 1
        if self._steps_to_talk > 0:
            return Decision(save=due)
        decision, self._stride = self._talk()
        self._steps_to_talk = self._stride
        return dataclasses.replace(decision, save=decision.save or due)

    def _talk(self) -> tuple[Decision, int]:
        """Agree on a decision, and after how many steps to talk again."""
        preempted = self._preemption()
        # One checkpoint for each warning: the node may stay for minutes.
        warned = preempted is not None and preempted != self._preempted
        self._preempted = preempted
        message: list[tuple[Decision, int] | None] = [None]
        if self._accelerator.is_main_process:
            stop = self._stop_requested()
            urgent = warned or stop
            message = [(Decision(urgent or self._overdue(), urgent, stop), self._pace())]
        broadcast_object_list(message)
        assert message[0] is not None  # rank 0 has said it
        return message[0]

    def _overdue(self) -> bool:
        minutes = self._config.every_minutes
        return minutes is not None and time.monotonic() - self._saved_at >= 60 * minutes

    def _pace(self) -> int:
        """Steps that take about a second; growing slowly, since the next steps may be slower than the last."""
        now = time.monotonic()
        seconds, self._talked_at = now - self._talked_at, now
        fitting = int(self._stride * _SECONDS_BETWEEN_TALKS / max(seconds, 1e-3))
        return max(1, min(fitting, 2 * self._stride))

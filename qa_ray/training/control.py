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
from qa_ray.training.wishes import Outside

_SECONDS_BETWEEN_TALKS = 1.0
_SECONDS_BETWEEN_LOOKS = 0.5
# The controller looks every other second; it has something else to do if it has not ended the workers after this long.
_PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Decision:
    """What happens between two steps."""

    save: bool = False
    urgent: bool = False
    """The checkpoint must be made, whatever else is under way."""
    stop: bool = False
    wait: bool = False
    """No step is made before `Control.wait` has come back: another number of workers is to go on from here."""


class Control:
    """Decides between steps; every rank holds one and asks it after every step."""

    def __init__(self, config: CheckpointConfig, accelerator: Accelerator, outside: Outside) -> None:
        """Follow `config`.

        Args:
            config: when checkpoints are due.
            accelerator: joins the ranks.
            outside: what is asked of the run; used on the main process alone.
        """
        self._config = config
        self._accelerator = accelerator
        self._outside = outside
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

    def wait(self, stored: Callable[[], bool | None]) -> bool:
        """Make no step until the workers are ended, or a resize is not wanted any more; every rank calls it.

        Args:
            stored: whether the checkpoint of this step is stored; None while it is under way. Main process only.

        Returns:
            Whether the run is to be stopped instead.
        """
        look, said = _Wait(self._outside, stored), Decision(wait=True)
        while said.wait:
            # The ranks talk all the while: none waits in one collective for as long as an upload may take.
            message = [said]
            if self._accelerator.is_main_process:
                time.sleep(_SECONDS_BETWEEN_LOOKS)
                message = [look()]
            broadcast_object_list(message)
            said = message[0]
        return said.stop

    def _talk(self) -> tuple[Decision, int]:
        """Agree on a decision, and after how many steps to talk again."""
        message: list[tuple[Decision, int] | None] = [None]
        if self._accelerator.is_main_process:
            message = [(self._decide(), self._pace())]
        broadcast_object_list(message)
        assert message[0] is not None  # rank 0 has said it
        return message[0]

    def _decide(self) -> Decision:
        wishes, preempted = self._outside.wishes(), self._outside.preemption()
        # One checkpoint for each warning: the node may stay for minutes.
        warned = preempted is not None and preempted != self._preempted
        self._preempted = preempted
        wait = wishes.resize and not wishes.stop
        urgent = warned or wishes.stop or wait
        return Decision(urgent or self._overdue(), urgent, wishes.stop, wait)

    def _overdue(self) -> bool:
        minutes = self._config.every_minutes
        return minutes is not None and time.monotonic() - self._saved_at >= 60 * minutes

    def _pace(self) -> int:
        """Steps that take about a second; growing slowly, since the next steps may be slower than the last."""
        now = time.monotonic()
        seconds, self._talked_at = now - self._talked_at, now
        fitting = int(self._stride * _SECONDS_BETWEEN_TALKS / max(seconds, 1e-3))
        return max(1, min(fitting, 2 * self._stride))


class _Wait:
    """The main process while no step is made."""

    def __init__(self, outside: Outside, stored: Callable[[], bool | None]) -> None:
        self._outside = outside
        self._stored = stored
        self._deadline: float | None = None

    def __call__(self) -> Decision:
        wishes = self._outside.wishes()
        if wishes.stop or (wishes.resize and self._in_vain()):
            self._outside.go_on()
            return Decision(stop=wishes.stop)
        return Decision(wait=wishes.resize)

    def _in_vain(self) -> bool:
        if self._deadline is not None:
            return time.monotonic() >= self._deadline
        stored = self._stored()
        if stored:
            self._outside.saved()
            self._deadline = time.monotonic() + _PATIENCE_S
        return stored is False

"""What stands between a driver and its warm workers. Its process imports nothing of what they do."""

from ray import ObjectRef

from qa_ray.runs.outcome import Outcome


class WorkQueue:
    """An actor between a driver and its warm workers: takes work one way, and its outcome the other."""

    def __init__(self) -> None:
        self._number = 0
        self._work: ObjectRef | None = None
        self._outcome: Outcome | None = None
        self._closed = False
        self._groups = 0

    def put(self, work: tuple[ObjectRef]) -> None:
        """Give the workers something to do, once they have done all else; Ray fetches nothing out of a tuple."""
        self._number += 1
        (self._work,), self._outcome = work, None

    def close(self) -> None:
        """Let the workers end."""
        self._closed = True

    def join(self) -> None:
        """Another group of workers has come."""
        self._groups += 1

    def groups(self) -> int:
        """How many groups there have been."""
        return self._groups

    def take(self, done: int) -> tuple[int, ObjectRef | None, bool]:
        """For a worker that has `done` so many: number and work of the next one, if any, and whether it is to end."""
        news = self._work is not None and self._outcome is None and self._number > done
        return self._number, self._work if news else None, self._closed

    def finish(self, outcome: Outcome) -> None:
        """Rank 0 has done its work, which the others have done or are about to end."""
        self._outcome = outcome

    def outcome(self) -> Outcome | None:
        """What became of the work; None while it goes on."""
        return self._outcome

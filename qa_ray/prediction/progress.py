"""How far the job is: a bar on a terminal, a line every 15 seconds in a log."""

from typing import Self

from qa_ray.prediction.actor import AnsweredPart
from qa_ray.runs.stream import make_bar

_BAR = "{desc}: {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}{postfix}]"
_LINE = "{desc}: {percentage:3.0f}% [{elapsed}<{remaining}{postfix}]"


class ProgressBar:
    """Counts questions, and guesses from the share of the input that is done how many there are.

    Attributes:
        num_rows: questions done, with those that were done before.
        num_answered: questions done now.
        num_parts: parts of the input done.
        num_reasons: questions among the latter that could not be answered.
    """

    def __init__(self, size: int, max_rows: int | None) -> None:
        """Begin: `size` is that of the whole input, `max_rows` are the most that are done of it."""
        self.num_rows = self.num_answered = self.num_parts = self.num_reasons = 0
        self._size = max(size, 1)
        self._max_rows = max_rows
        self._size_done = 0.0
        self._bar = make_bar(_LINE, bar_format=_BAR, total=1.0, desc="predict")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    @property
    def seconds(self) -> float:
        """Time since the beginning."""
        return float(self._bar.format_dict["elapsed"])

    def add(self, part: AnsweredPart) -> None:
        """Count a part of the input."""
        self.num_rows += part.num_rows
        self.num_parts += 1
        self._size_done += part.size
        if not part.finished_before:
            self.num_answered += part.num_rows
            self.num_reasons += part.num_reasons
        share = self._size_done / self._size
        if self._max_rows is not None:
            share = max(share, self.num_rows / self._max_rows)
        share = min(share, 1.0)
        rate = self.num_answered / max(self.seconds, 1e-9)
        text = f"{self.num_rows:,} of about {self.num_rows / max(share, 1e-9):,.0f} questions, {rate:.1f}/s"
        self._bar.set_postfix_str(text, refresh=False)
        if part.finished_before:
            # What takes no time must not shorten the time that is left.
            self._bar.initial += share - self._bar.n
        self._bar.update(share - self._bar.n)

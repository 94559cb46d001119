"""How far the trials under way are: on a terminal a line for each, kept up to date; in a log a line for every tenth."""

from dataclasses import dataclass
from typing import Any, Self

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from qa_ray.runs.progress import make_bar
from qa_ray.runs.stream import Fetcher

_LINE = "{desc}: {percentage:3.0f}% {n_fmt}/{total_fmt} steps [{elapsed}<{remaining}{postfix}]"


@dataclass(frozen=True, slots=True)
class TrialProgress:
    """How far a trial is."""

    name: str
    step: int
    num_steps: int
    scored: str = ""
    """What it has scored last, and when; empty before the first evaluation."""
    ended: bool = False
    """Whether nothing more is to come."""


class SweepView:
    """Shows the trials under way, which tell of themselves through a stream, while the context lasts."""

    def __init__(self, stream: Any) -> None:
        """Follow a stream, to which `TrialProgress` is put."""
        self._bars: dict[str, tqdm] = {}
        self._logging = logging_redirect_tqdm()
        self._fetcher = Fetcher[TrialProgress](stream.take, self._show)

    def __enter__(self) -> Self:
        self._logging.__enter__()
        self._fetcher.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._fetcher.__exit__(*error)
        for bar in self._bars.values():
            bar.close()
        self._logging.__exit__(None, None, None)

    def _show(self, item: TrialProgress) -> None:
        if item.ended:
            if bar := self._bars.pop(item.name, None):
                bar.close()
            return
        bar = self._bars.get(item.name)
        if bar is None:
            # What becomes of a trial stays there as a line of its own.
            settings = {"position": None, "leave": False, "bar_format": _LINE, "unit": " steps"}
            bar = make_bar(_LINE, total=item.num_steps, initial=item.step, desc=item.name, **settings)
            self._bars[item.name] = bar
        bar.set_postfix_str(item.scored, refresh=False)
        bar.update(item.step - bar.n)

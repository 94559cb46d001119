"""Progress: on a terminal one line that is rewritten, in a notebook a bar, in a log a line for every ten percent."""

import importlib.util
import io
import sys
from typing import Any, Self

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from qa_ray.tracking.metrics import EVAL_PREFIX, SHARE_PREFIX, TRAIN_LOSS, Progress

_LINE = "{desc}: {percentage:3.0f}% {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"


class _Lines(tqdm):  # type: ignore[misc]
    """A bar for a log: what it would show is a line, and only when another tenth is done."""

    _tenth = -1

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Write the bar's state, if it has come to another tenth."""
        # Ten times 0.7 is a little less than 7.
        tenth = int(10 * self.n / self.total + 1e-9)
        if tenth > self._tenth:
            self._tenth = tenth
            sys.stderr.write(f"{self}\n")
            sys.stderr.flush()


def make_bar(line: str, **settings: Any) -> tqdm:
    """A bar with tqdm's `settings`, which name a total; in a log it is shown as `line`, in a notebook as a widget."""
    if _in_notebook():
        from tqdm.notebook import tqdm as widget  # here: it brings ipywidgets, for nobody else to see

        return widget(**settings)
    if sys.stderr.isatty():
        # All stand on the same line. With miniters, tqdm's own thread draws none while another one is shown.
        return tqdm(**{"file": sys.stderr, "dynamic_ncols": True, "miniters": 0, "position": 0, **settings})
    # tqdm writes control characters of its own when a bar is closed.
    return _Lines(**{**settings, "file": io.StringIO(), "mininterval": 0.0, "miniters": 0, "bar_format": line})


def _in_notebook() -> bool:
    """Whether this process is a notebook's kernel, whose reader can be shown widgets."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return "IPKernelApp" in getattr(shell, "config", ()) and importlib.util.find_spec("ipywidgets") is not None


class Display:
    """Shows what rank 0 records: one bar at a time, and above it the evaluations and whatever is said meanwhile."""

    def __init__(self) -> None:
        self._bars: dict[str, tqdm] = {}
        # So that what the driver logs does not break the bar's line.
        self._logging = logging_redirect_tqdm()

    def __enter__(self) -> Self:
        self._logging.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
        self._logging.__exit__(None, None, None)

    def write(self, text: str) -> None:
        """Write a line above the bar."""
        tqdm.write(text, file=sys.stderr)

    def show(self, progress: Progress) -> None:
        """Show how far training or an evaluation is, or what the evaluation gave."""
        if progress.phase == "evaluate" and progress.metrics:
            bar = self._bars.pop("evaluate", None)
            if bar is not None:
                bar.close()
            self.write(_evaluation_line(progress))
            return
        bar = self._bars.get(progress.phase) or self._new_bar(progress)
        if TRAIN_LOSS in progress.metrics:
            bar.set_postfix(loss=f"{progress.metrics[TRAIN_LOSS]:.3f}", refresh=False)
        bar.update(progress.done - bar.n)

    def close(self) -> None:
        """Leave the bars as they are; what is shown next begins others."""
        for bar in self._bars.values():
            bar.close()
        self._bars.clear()

    def _new_bar(self, progress: Progress) -> tqdm:
        training = progress.phase == "train"
        for other in self._bars.values():
            other.clear()
        bar = make_bar(
            _LINE,
            total=progress.total,
            initial=progress.done,
            desc=progress.phase,
            unit=" steps" if training else " windows",
            leave=training,
            # In a log the evaluation's short bar would only be more lines.
            disable=not training and not sys.stderr.isatty(),
        )
        self._bars[progress.phase] = bar
        return bar


def _evaluation_line(progress: Progress) -> str:
    names = ("exact_match", "f1", "loss")
    on_share = SHARE_PREFIX + "loss" in progress.metrics
    prefix = SHARE_PREFIX if on_share else EVAL_PREFIX
    scores = ", ".join(f"{name} {progress.metrics[prefix + name]:.2f}" for name in names)
    return f"step {progress.step}: {scores}" + " (on evaluate.share of the questions)" * on_share

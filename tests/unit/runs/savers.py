"""A tiny run and what saves it, for tests of the saver."""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from small_runs import changed, cpu_accelerator, made_passages, make_collator, make_run, tiny_config

from qa_ray.runs.saved import Saved, find_saved
from qa_ray.runs.saver import Saver
from qa_ray.runs.takeover import take_over
from qa_ray.scores.results import Evaluation
from qa_ray.storage.ownership import Ownership
from qa_ray.storage.run_folder import OWNER, RunFolder
from qa_ray.storage.upload import Uploader
from qa_ray.training.evaluator import Evaluator

EPOCHS = 9
_SCORES = {"f1": 50.0, "exact_match": 40.0, "loss": 2.0}


class SavedRun:
    """A run of a few steps in each epoch, its folder, and what its newest saver stores checkpoints with."""

    uploader: Uploader

    def __init__(self, bert: Path, folder: RunFolder) -> None:
        self.config = tiny_config(bert, train={"epochs": EPOCHS})
        self.folder = folder
        passages = made_passages(3)
        run = make_run(self.config, passages)
        self.model, self.loop, self.records = run.model, run.loop, run.records
        evaluate = Evaluator(make_collator(self.config, passages), self.config.evaluate, no_answer=False)
        self.evaluation: Evaluation = evaluate(run.loop.model, cpu_accelerator())

    @property
    def steps_per_epoch(self) -> int:
        return self.loop.num_steps // EPOCHS

    def saver(
        self,
        history: list[Any] | None = None,
        *,
        saved: Saved | None = None,
        ownership: Ownership | None = None,
        **evaluate: Any,
    ) -> Saver:
        """A new saver; `evaluate` replaces fields of that section."""
        config = changed(self.config, evaluate=evaluate)
        history = [] if history is None else history
        return Saver(
            config,
            self.folder,
            cpu_accelerator(),
            history,
            saved=saved,
            ownership=ownership,
            uploader=self._make_uploader,
        )

    def _make_uploader(self, *arguments: Any) -> Uploader:
        self.uploader = Uploader(*arguments, pauses=(0.0, 0.0))
        return self.uploader

    def step(self) -> None:
        """Make a step, and close the epoch before it."""
        before = self.loop.state.step
        while self.loop.state.step == before:
            self.loop.train_epoch(lambda: True)

    def save(self, saver: Saver) -> None:
        """Save in mid-epoch, and wait until it is stored."""
        saver.save(self.loop, self.model)
        while saver.stored(self.loop.state.step) is None:
            time.sleep(0.001)

    def save_evaluated(self, saver: Saver, **metrics: float) -> None:
        """Save with an evaluation that has these metrics; it is stored later."""
        evaluation = dataclasses.replace(self.evaluation, metrics=_SCORES | metrics)
        saver.save_evaluated(self.loop, self.model, evaluation)

    def found(self, accelerator: Any = None) -> Saved | None:
        """The newest whole checkpoint."""
        return find_saved(self.folder, accelerator or cpu_accelerator(), "group")

    def begin(self, job: str = "job") -> None:
        """Let a driver take the run over."""
        self.folder.write(OWNER, job.encode())

    def take_over(self, job: str = "job") -> tuple[Ownership, Saved | None]:
        """Let a new worker group take it over."""
        return take_over(self.folder, cpu_accelerator(), job)


def fail(error: BaseException) -> Callable[..., None]:
    """A function that raises `error`, whatever it is called with."""

    def raise_it(*_: Any, **__: Any) -> None:
        raise error

    return raise_it

"""A run as one rank makes it: train, evaluate and save, epoch by epoch."""

import logging
import resource
from dataclasses import dataclass

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast, broadcast_object_list
from transformers import PreTrainedModel

from qa_ray.config.fine_tuning import Config
from qa_ray.runs.outcome import Outcome
from qa_ray.runs.ranks import on_main
from qa_ray.runs.saved import Saved
from qa_ray.runs.saver import Saver
from qa_ray.runs.stream import StreamSender
from qa_ray.scores.results import Evaluation
from qa_ray.tracking.metrics import (
    EPOCH,
    EVAL_PREFIX,
    PEAK_GPU_MEMORY_GB,
    PEAK_MEMORY_GB,
    Line,
    Progress,
    Record,
    prefix_of,
)
from qa_ray.training.collectives import gather_on_main
from qa_ray.training.control import Control
from qa_ray.training.evaluations import is_exhausted
from qa_ray.training.evaluator import Evaluator
from qa_ray.training.loop import TrainingLoop

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Run:
    """What a rank needs while it trains; every rank holds one and calls it together with the others."""

    config: Config
    accelerator: Accelerator
    sender: StreamSender
    record: Record
    model: PreTrainedModel
    loop: TrainingLoop
    evaluate: Evaluator
    """Measures the model while it trains."""
    evaluate_all: Evaluator
    """Measures it on all validation questions; the same one if those are what it is always measured on."""
    saver: Saver
    control: Control
    stopped: bool = False
    """Whether the run was asked to stop before its end."""
    exhausted: bool = False
    """Whether the last evaluations brought no gain, and the run ends early."""
    evaluated: int | None = None
    """The step of the last evaluation."""

    @property
    def over(self) -> bool:
        """Whether no more steps are made."""
        return self.loop.finished or self.stopped or self.exhausted

    def go_on(self, saved: Saved) -> None:
        """Go on from a checkpoint, whose weights the model holds already."""
        self.loop.restore(saved.snapshot)
        self.evaluated = saved.snapshot.step if saved.facts.evaluated else None
        self.exhausted = self._is_exhausted(saved.history)
        # Ranks of one node read the same copy.
        self.accelerator.wait_for_everyone()
        saved.discard()
        if self.accelerator.is_main_process:
            self.sender.restart(self.loop.state.step, saved.history)
            logger.info("going on from the checkpoint %s", saved.name)

    def begin(self, *, evaluate: bool) -> None:
        """Begin at the first step; `evaluate` measures the model before it."""
        if self.accelerator.is_main_process:
            self.sender.restart(0, [])
        if evaluate:
            self._measure_on_all(0)

    def epoch(self) -> None:
        """Train to the end of the epoch, evaluating on the way and then; or stop on the way."""
        # Whoever stopped at once, or was lost, has left it out.
        self._evaluate_if_due()
        if self.exhausted:
            return
        if self.loop.train_epoch(self._pause):
            self._evaluate_and_save()
        else:
            self.stopped = not self.exhausted

    def _evaluate_if_due(self) -> None:
        if self.loop.evaluation_due and self.evaluated != self.loop.state.step:
            with self.loop.standing_still():
                self._evaluate_and_save()

    def _evaluate_and_save(self) -> None:
        step = self.evaluated = self.loop.state.step
        result = self.evaluate(self.loop.model, self.accelerator, step=step, record=self.record)
        peaks = gather_on_main(self.accelerator, peak_memory(self.accelerator.device))
        memory = {name: max(one[name] for one in peaks) for name in peaks[0]} if peaks else {}
        self._record_evaluation(result, step, prefix_of(self.config.evaluate.share), {EPOCH: self.loop.epochs} | memory)
        self.saver.save_evaluated(self.loop, self.model, result)
        self.control.saved()
        message = [self._is_exhausted(self.sender.history)]
        broadcast_object_list(message)
        (self.exhausted,) = message
        if self.exhausted and self.accelerator.is_main_process:
            logger.info("step %d ends the run: %d evaluations without a gain", step, self.config.train.patience)

    def _measure_on_all(self, step: int) -> Evaluation | None:
        result = self.evaluate_all(self.loop.model, self.accelerator, step=step, record=self.record)
        self._record_evaluation(result, step, EVAL_PREFIX, {})
        return result

    def _record_evaluation(self, result: Evaluation | None, step: int, prefix: str, further: dict[str, float]) -> None:
        if result is not None:
            metrics = {f"{prefix}{name}": float(value) for name, value in result.metrics.items()}
            self.record(Progress("evaluate", 1, 1, step, metrics | further))

    def _measure_kept(self) -> None:
        """Measure the best model on all validation questions, if it was chosen by a share of them."""
        if self.stopped or self.config.evaluate.share == 1:
            return
        state, saver = PartialState(), self.saver
        best = on_main(state, lambda: saver.best.step if saver.best else None)
        if best is None:
            return
        if best != self.loop.state.step:
            on_main(state, lambda: saver.load(best, self.model))
            if state.num_processes > 1:
                broadcast(list(self.model.state_dict().values()))
        result = self._measure_on_all(best)
        if result is not None:
            saver.keep(result)

    def _is_exhausted(self, history: list[Line]) -> bool:
        train, evaluate, by = self.config.train, self.config.evaluate, self.config.evaluate.best_by
        name = prefix_of(evaluate.share) + by
        merits = [by.merit(line[name]) for line in history if line["step"] and name in line]
        return is_exhausted(merits, patience=train.patience, min_gain=train.min_gain)

    def end(self) -> Outcome:
        """Wait until everything is stored, and measure what is kept.

        Raises:
            StorageError: an evaluated checkpoint could not be stored.
        """
        try:
            self.saver.close()
            self._measure_kept()
        finally:
            self.sender.flush()
        state, best = self.loop.state, self.saver.best
        best_step = best.step if best else None
        return Outcome(state.step, self.loop.num_steps, best_step, self.stopped, state.ledger, self.sender.history)

    def _pause(self) -> bool:
        step = self.loop.state.step
        decision = self.control(step)
        # The checkpoint that comes with an evaluation is near, but whoever is in a hurry leaves that for later.
        near = self.loop.epoch_done or self.loop.evaluation_due
        if decision.urgent or (decision.save and not near):
            self.saver.save(self.loop, self.model, urgent=decision.urgent)
            self.control.saved()
        if decision.wait:
            if self.accelerator.is_main_process:
                logger.info("another number of workers goes on from step %d, as soon as it is stored", step)
            if self.control.wait(lambda: self.saver.stored(step)):
                return True
        if decision.stop:
            return True
        self._evaluate_if_due()
        return self.exhausted


def peak_memory(device: torch.device) -> dict[str, float]:
    """Most memory that this process has taken so far, on its host and on its GPU if it has one, in 10^9 bytes."""
    # Linux counts in KiB.
    peaks = {PEAK_MEMORY_GB: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9}
    if device.type == "cuda":
        peaks[PEAK_GPU_MEMORY_GB] = torch.cuda.max_memory_allocated(device) / 1e9
    return peaks

"""The training loop: forward, backward, clip, step, schedule, zero, count. It knows nothing of Ray."""

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn
from transformers import PreTrainedModel

from qa_ray.config.fine_tuning import Config
from qa_ray.data.batching import num_steps, plan_epoch, steps_per_epoch
from qa_ray.data.collate import Collator
from qa_ray.errors import TrainingError
from qa_ray.model.token_limit import TokenLimit
from qa_ray.schema import Float64s, Int64s
from qa_ray.tracking.metrics import (
    CHECKPOINT_STALL_SECONDS,
    GRAD_NORM,
    LEARNING_RATE,
    MODEL_FLOPS_UTILIZATION,
    PADDING_SHARE,
    SKIPPED_STEPS,
    TOKENS_PER_SECOND,
    TRAIN_LOSS,
    WINDOWS_PER_SECOND,
    Progress,
    Record,
    ignore,
)
from qa_ray.training.evaluations import is_due
from qa_ray.training.gradient import ShareGradient
from qa_ray.training.optim import make_optimizer, make_schedule
from qa_ray.training.snapshot import Parts, Snapshot, TrainState
from qa_ray.training.throughput import Meter, flops_per_token, peak_flops
from qa_ray.training.to_host import ToHost
from qa_ray.training.wrapping import make_trainable

logger = logging.getLogger(__name__)

# A scaler that halves its scale this often in a row has left fp16's range: no step will succeed any more.
_MAX_SKIPPED_IN_A_ROW = 40
_SECONDS_BETWEEN_PROGRESS = 1.0


@dataclass(frozen=True, slots=True)
class _Made:
    """A step whose numbers are on their way to the host."""

    batch: Int64s
    grad_norm: ToHost
    totals: ToHost | None = None
    """What all ranks' meters have counted until then, at a step that is recorded."""
    seconds: float = 0.0
    """How long that took."""


class TrainingLoop:
    """Trains a model on the batch plan; every rank holds one and makes the same steps.

    Attributes:
        state: where the run stands.
        num_steps: optimizer steps of the whole run.
    """

    def __init__(
        self,
        config: Config,
        collator: Collator,
        model: PreTrainedModel,
        accelerator: Accelerator,
        record: Record = ignore,
        note: Callable[[str], object] = logger.warning,
    ) -> None:
        """Set up optimizer and schedule; `model` is moved to the accelerator's device and wrapped.

        Args:
            config: the run's configuration.
            collator: makes batches of the training windows.
            model: what is trained.
            accelerator: joins the ranks.
            record: takes what is measured.
            note: told where this rank's device has to compute in smaller micro-batches.

        Raises:
            ConfigError: gradient checkpointing is asked of a model that has none.
        """
        self._config = config
        self._collate = collator
        self._lengths = collator.windows.length
        self._accelerator = accelerator
        self._record = record
        self.state = TrainState()
        self.num_steps = num_steps(len(collator.windows), config)
        shortest = collator(np.array([self._lengths.argmin()]))
        trained = make_trainable(model, config, accelerator, shortest)
        optimizer = make_optimizer(model, config.optim)
        self._schedule = make_schedule(optimizer, config.optim, self.num_steps)
        self._model, self._optimizer = accelerator.prepare(trained, optimizer)
        self._peak_flops = peak_flops(accelerator.device)
        self._flops_per_token = flops_per_token(model, float(self._lengths.mean()))
        self._meter = Meter(torch.zeros((), device=accelerator.device))
        limit = TokenLimit(config.batch.max_tokens_per_device, "batch.max_tokens_per_device", note)
        self._add_gradient = ShareGradient(config.batch, collator, self._model, accelerator, self._meter, limit)
        self._made: _Made | None = None
        self._shown_at = self._stall = 0.0
        torch.manual_seed(config.train.seed + accelerator.process_index)

    @property
    def model(self) -> nn.Module:
        """The model for evaluation: without the wrapper that waits for other ranks, with mixed precision."""
        model: nn.Module = self._accelerator.unwrap_model(self._model, keep_torch_compile=True)
        return model

    @property
    def finished(self) -> bool:
        """Whether all steps are made."""
        # A run may be resumed after its last step, with its last epoch still open.
        return self._all_steps_made and self.state.position == 0

    @property
    def epochs(self) -> float:
        """Epochs trained, by windows."""
        return self.state.windows / len(self._lengths)

    @property
    def epoch_done(self) -> bool:
        """Whether the epoch under way has no more steps."""
        return self._all_steps_made or self.state.position * self._config.batch.size >= len(self._lengths)

    def snapshot(self) -> Snapshot:
        """Take all state but the weights; every rank calls it, and the main process holds a whole snapshot.

        Raises:
            TrainingError: the last step's gradient is not a finite number.
        """
        self._settle()
        return self._parts().take(self.state)

    def restore(self, snapshot: Snapshot) -> None:
        """Go on from a snapshot of the same windows, on any number of ranks; the model holds its weights already."""
        self.state = self._parts().put(snapshot)

    def train_epoch(self, pause: Callable[[], bool] = lambda: False) -> bool:
        """Train the rest of the epoch under way, and move on to the next.

        Args:
            pause: called after every step; True ends the epoch there, to be gone on with later.

        Returns:
            Whether the epoch was trained to its end.

        Raises:
            TrainingError: a loss or a gradient is not a finite number.
            ClusterError: the device's memory does not hold a single window.
        """
        plan = plan_epoch(self._lengths, self._config.batch, seed=self._config.train.seed, epoch=self.state.epoch)
        self._model.train()
        self._meter.start_clock()
        batches = list(plan.batches(self.state.position))
        with self._add_gradient.batches.running():
            for batch, following in zip(batches, [*batches, None][1:], strict=True):
                if self._all_steps_made:
                    break
                self._train_step(batch, following)
                if pause():
                    self._meter.stop_clock()
                    return False
        self._settle()
        self._meter.stop_clock()
        self.state.epoch += 1
        self.state.position = 0
        return True

    @contextlib.contextmanager
    def standing_still(self) -> Iterator[None]:
        """Between two steps: record the last one, and leave the time out of what is measured of steps.

        Raises:
            TrainingError: the last step's gradient is not a finite number.
        """
        self._settle()
        self._meter.stop_clock()
        yield
        self._meter.start_clock()

    @property
    def evaluation_due(self) -> bool:
        """Whether the model is to be evaluated here, within an epoch."""
        state, steps = self.state, steps_per_epoch(len(self._lengths), self._config.batch.size)
        within, config = state.position > 0 and not self.epoch_done, self._config.evaluate
        return within and is_due(config, step=state.step, position=state.position, epoch_steps=steps)

    def note_stall(self, seconds: float) -> None:
        """Add to the time that the steps stood still for a checkpoint, which the next record tells."""
        self._stall += seconds

    @property
    def _all_steps_made(self) -> bool:
        return self.state.step >= self.num_steps

    def _parts(self) -> Parts:
        limit, seed = self._add_gradient.limit, self._config.train.seed
        return Parts(self._accelerator, self._optimizer, self._schedule, self._meter, limit, seed)

    def _train_step(self, batch: Int64s, following: Int64s | None) -> None:
        self._add_gradient(batch, following)
        grad_norm = ToHost(self._clip())
        # The learning rate of this step follows from whether the one before was skipped.
        self._settle()
        self._optimizer.step()
        self._optimizer.zero_grad()
        self.state.add(batch)
        self._made = self._measure(batch, grad_norm)

    def _clip(self) -> torch.Tensor:
        """Scale the gradients down to the allowed norm, and return the norm that they had."""
        limit = self._config.optim.max_grad_norm or float("inf")
        norm: torch.Tensor = self._accelerator.clip_grad_norm_(self._model.parameters(), limit)
        return norm

    def _settle(self) -> None:
        """Find out how the last step went, and record it if it is due.

        Every step does so for the one before it, whose numbers have long been computed: a GPU never waits for it.

        Raises:
            TrainingError: its gradient was not a finite number; under fp16, those of too many steps in a row.
        """
        made, self._made = self._made, None
        if made is None:
            return
        grad_norm = float(made.grad_norm.read())
        if math.isfinite(grad_norm):
            self.state.skipped_in_a_row = 0
            self._schedule.step()
        elif self._accelerator.mixed_precision == "fp16":
            # The gradient scaler and the optimizer have left the weights alone, and told nobody.
            self._count_skipped(made.batch)
        else:
            raise TrainingError(self._describe(made.batch, f"the gradient's norm is {grad_norm}"))
        if made.totals is not None:
            metrics = self._metrics(made.totals.read(), made.seconds) | {GRAD_NORM: grad_norm}
            self._record(Progress("train", self.state.step, self.num_steps, self.state.step, metrics))

    def _count_skipped(self, batch: Int64s) -> None:
        self.state.skipped_steps += 1
        self.state.skipped_in_a_row += 1
        if self.state.skipped_in_a_row >= _MAX_SKIPPED_IN_A_ROW:
            reason = f"fp16's gradient scaler skipped {self.state.skipped_in_a_row} steps in a row"
            raise TrainingError(self._describe(batch, reason))

    def _describe(self, batch: Int64s, reason: str) -> str:
        corpus, windows = self._collate.corpus, self._collate.windows
        ids = ", ".join(corpus.id(int(question)) for question in windows.question[batch][:8])
        return (
            f"training went astray at step {self.state.step}, epoch {self.state.epoch}: {reason}. "
            f"Its batch of {len(batch)} windows holds the questions {ids}"
            f"{', ...' if len(batch) > 8 else ''}. "
            "Try a lower optim.learning_rate, a longer optim.warmup_ratio, or train.precision=fp32"
        )

    def _measure(self, batch: Int64s, grad_norm: ToHost) -> _Made:
        """What is to be known of the step that was just made; every rank calls it at the same step."""
        step = self.state.step
        if step % self._config.train.log_every == 0 or self._all_steps_made:
            totals = ToHost(self._accelerator.reduce(self._meter.totals(), "sum"))
            made = _Made(batch, grad_norm, totals, self._meter.restart())
        else:
            made = _Made(batch, grad_norm)
            if time.monotonic() - self._shown_at < _SECONDS_BETWEEN_PROGRESS:
                return made
            self._record(Progress("train", step, self.num_steps, step))
        self._shown_at = time.monotonic()
        return made

    def _metrics(self, totals: Float64s, seconds: float) -> dict[str, float]:
        """What is recorded of the last steps, given what all ranks have counted in so many seconds."""
        loss, windows, tokens, padded = totals.tolist()
        metrics = {
            TRAIN_LOSS: loss / windows,
            LEARNING_RATE: self._schedule.get_last_lr()[0],
            WINDOWS_PER_SECOND: windows / seconds,
            TOKENS_PER_SECOND: tokens / seconds,
            PADDING_SHARE: 1 - tokens / padded,
        }
        if self._peak_flops is not None:
            used = self._flops_per_token * tokens / seconds / self._accelerator.num_processes
            metrics[MODEL_FLOPS_UTILIZATION] = used / self._peak_flops
        if self._accelerator.mixed_precision == "fp16":
            metrics[SKIPPED_STEPS] = float(self.state.skipped_steps)
        if self._stall:
            metrics[CHECKPOINT_STALL_SECONDS], self._stall = self._stall, 0.0
        return metrics

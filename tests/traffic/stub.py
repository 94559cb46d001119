"""A worker that controls its steps, records them and looks at its node as in training, and whose steps do nothing."""

import time
from collections.abc import Mapping
from typing import Any
from unittest import mock

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from ray import train

from qa_ray.config.fine_tuning import TrainConfig
from qa_ray.config.operation import CheckpointConfig
from qa_ray.runs.stream import StreamSender, StreamWishes
from qa_ray.runs.trainer import preemption_known
from qa_ray.tracking.metrics import Progress
from qa_ray.tracking.node_metrics import NodeSampler
from qa_ray.training import control
from qa_ray.training.control import Control, Decision
from traffic.counting import Kind, Traffic, size

STEP_S = 0.1
SAMPLE_S = 10.0
# As many numbers as the real ones.
METRICS = {f"metric_number_{number}": number / 7 for number in range(6)}
NODE_METRICS = {f"metric_number_{number}": number / 7 for number in range(12)}
LOG_EVERY = TrainConfig().log_every


class Monitor:
    """Stands for MLflow's monitors, which take seconds to import."""

    collect_metrics = clear_metrics = lambda self: None

    def aggregate_metrics(self) -> Mapping[str, float]:
        return NODE_METRICS


class Broadcasts:
    """Counts what a rank is sent in broadcasts: first a size, then what has it."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.received = Traffic()
        self._receives = not accelerator.is_main_process

    def __call__(self, message: list[Any]) -> None:
        broadcast_object_list(message)
        if self._receives:
            self.received += Traffic(2, 8 + size(message[0]))


def work(stream: Any) -> int:
    """Make steps until the stream is asked to stop, and return how many."""
    accelerator = Accelerator(cpu=True)
    sender, broadcasts = StreamSender(stream), Broadcasts(accelerator)
    decide = Control(CheckpointConfig(every_minutes=None), accelerator, StreamWishes(stream, preemption_known))
    address = f"node of rank {accelerator.process_index}"
    sampler = NodeSampler(
        SAMPLE_S, stream.put_sample.remote, stream.put.remote, address=address, monitors=lambda: {"all": Monitor}
    )
    step, decision = 0, Decision()
    with sampler, mock.patch.object(control, "broadcast_object_list", broadcasts):
        while not decision.stop:
            time.sleep(STEP_S)
            step += 1
            if accelerator.is_main_process and step % LOG_EVERY == 0:
                sender(Progress("train", step, 10 * step, step, METRICS))
            decision = decide(step)
    received = gather_object([broadcasts.received])
    if train.get_context().get_world_rank() == 0:
        stream.count.remote(Kind.DECISIONS, sum(received, Traffic()))
        sender.flush()
    return step

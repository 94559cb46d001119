"""A model's evaluation on the workers of a cluster: each rank its examples, and one of them all that was found."""

import json
import logging
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.train import TrainingFailedError

from qa_ray.config.fine_tuning import Config
from qa_ray.data.pipeline import Split
from qa_ray.data.template import Template
from qa_ray.data.windows import cut_note
from qa_ray.errors import ClusterError, ModelError
from qa_ray.evaluation.report import EvaluatedModel
from qa_ray.locations import resolve
from qa_ray.model.folder import open_model
from qa_ray.runs.driver import make_trainer, patience
from qa_ray.runs.failures import cause_of, raised_by_node
from qa_ray.runs.resources import Resources
from qa_ray.runs.stream import Follower, StreamSender, start_stream
from qa_ray.runs.worker import make_accelerator, make_collator, set_up_process
from qa_ray.scores.results import assemble
from qa_ray.storage.run_folder import METRICS
from qa_ray.tracking.metrics import ignore
from qa_ray.tracking.tracker import Tracker
from qa_ray.training.evaluator import Decoded, Evaluator

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationTask:
    """All that a worker needs."""

    config: Config
    model: str
    """Where workers find it."""
    split: Split
    template: Template
    threshold: float | None
    """Saved with the model or given; None if there is none."""
    resources: Resources

    @property
    def may_abstain(self) -> bool:
        """Whether it speaks for SQuAD v2.0 that questions without an answer count."""
        return self.split.has_unanswerable or self.threshold is not None

    def ids(self) -> list[str]:
        """Of the questions, in the order of the data set."""
        return self.split.corpus().ids()


def evaluate_on_workers(task: EvaluationTask, *, no_answer: bool) -> EvaluatedModel:
    """Evaluate one model on the workers, and score its answers here, where the texts are."""
    collator = make_collator(task.config, task.split.corpus(), task.template)
    corpus, windows = collator.corpus, collator.windows
    name = task.config.model.name
    logger.info("%s: %d questions in %d windows", name, len(corpus), len(windows))
    if note := cut_note(corpus, windows):
        logger.warning("%s: %s", name, note)
    found = _run(task)
    threshold = task.threshold if no_answer else None
    evaluation = assemble(
        corpus,
        found.candidates,
        found.null,
        found.loss,
        no_answer=no_answer,
        threshold=threshold,
        language=task.config.evaluate.language,
    )
    return EvaluatedModel(
        name=name,
        config=task.config,
        evaluation=evaluation,
        corpus=corpus,
        windows=windows,
        history=run_history(name),
    )


def _run(task: EvaluationTask) -> Decoded:
    stream, resources = start_stream(), task.resources
    # Ray Train wants a folder even of those who store nothing.
    with tempfile.TemporaryDirectory(prefix="qa_ray-") as place:
        work = partial(_work, task, stream)
        trainer = make_trainer(work, resources, task.config.cluster, name="evaluate", storage_path=place)
        with patience(resources), Follower(stream, lambda content: None, Tracker()):
            try:
                result: Decoded = trainer.fit().return_value
            except TrainingFailedError as error:
                raise cause_of(error, _lost) from error
    return result


def _lost(what: str) -> ClusterError:
    return ClusterError(
        f"{what}, and cluster.max_failures is reached: its memory may have run out (lower --max-tokens-per-device), or "
        "its node is gone"
    )


def _work(task: EvaluationTask, stream: Any) -> Decoded | None:
    """Evaluate this rank's share; rank 0 returns what all have found."""
    with raised_by_node():
        return _evaluate_share(task, stream)


def _evaluate_share(task: EvaluationTask, stream: Any) -> Decoded | None:
    set_up_process(task.resources.cpus_per_worker)
    accelerator = make_accelerator(task.config, use_gpu=bool(ray.get_gpu_ids()))
    saved = open_model(task.model, trust_remote_code=task.config.model.trust_remote_code)
    collator = make_collator(task.config, task.split.corpus(), task.template)
    evaluator = Evaluator(collator, task.config.evaluate)
    sender = StreamSender(stream)
    # Without a wrapper for gradients, but with the precision.
    model = accelerator.prepare_model(saved.model, evaluation_mode=True)
    try:
        # Scored on the driver, which has the texts too.
        found = evaluator.decode(model, accelerator, record=sender if accelerator.is_main_process else ignore)
    except ModelError as error:
        raise ModelError(f"{task.config.model.name}: {error}") from error
    sender.flush()
    return found


def run_history(name: str) -> list[dict[str, Any]]:
    """Lines of the metrics.jsonl of the run that a model lies in, if it does: those that tell of a step."""
    folder = Path(resolve(name))
    file = next((place / METRICS for place in (folder, folder.parent) if (place / METRICS).is_file()), None)
    try:
        lines = [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file else []
        return [line for line in lines if isinstance(line, dict) and "step" in line]
    except (OSError, ValueError):
        logger.warning("%s cannot be read: the report is without learning curves", file)
        return []

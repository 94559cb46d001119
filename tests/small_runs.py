"""Tiny runs for tests: made questions, a configuration, and a training loop on a CPU."""

import dataclasses
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from passages import corpus_of
from transformers import PreTrainedModel

from qa_ray.config.fine_tuning import BatchConfig, Config, ModelConfig, OptimConfig, TrainConfig, WindowConfig
from qa_ray.config.policies import Precision
from qa_ray.data.collate import Collator
from qa_ray.data.windows import make_windows
from qa_ray.model.empty import first_position
from qa_ray.model.loading import learn_template, load_model, load_settings, load_tokenizer
from qa_ray.model.packing import packed
from qa_ray.schema import Answer, Passage, Question
from qa_ray.tracking.metrics import Progress
from qa_ray.training.loop import TrainingLoop

_WORDS = [
    "river",
    "bridge",
    "town",
    "people",
    "city",
    "year",
    "university",
    "author",
    "stone",
    "king",
    "army",
    "country",
    "house",
    "temperature",
]
_RARE = [
    "flows",
    "founded",
    "built",
    "live",
    "march",
    "cathedral",
    "price",
    "author",
    "ice",
    "north",
    "days",
    "capital",
    "museum",
]


def made_passages(
    num_questions: int = 8, *, unanswerable: int = 0, num_words: tuple[int, int] = (10, 40)
) -> list[Passage]:
    """Passages of random words with a question each; the first `unanswerable` questions have no answer."""
    rng = random.Random(num_questions)
    passages = []
    for number in range(num_questions):
        words = rng.choices(_WORDS, k=rng.randint(*num_words))
        place = rng.randrange(len(words) - 2)
        context, text = " ".join(words), " ".join(words[place : place + 2])
        start = len(" ".join(words[:place])) + (place > 0)
        answers = () if number < unanswerable else (Answer(text, start),)
        asked = " ".join(["Which", *rng.sample(_RARE, rng.randint(2, 4)), "?"])
        passages.append(Passage(context, (Question(f"q{number}", asked, answers, f"made[{number}]"),)))
    return passages


def tiny_config(folder: Path, /, **sections: dict[str, Any]) -> Config:
    """Small windows and batches, no dropout, a record at every step; `sections` replace single fields."""
    config = Config(
        model=ModelConfig(name=str(folder), dropout=0.0),
        window=WindowConfig(max_length=32, stride=8),
        batch=BatchConfig(size=4),
        optim=OptimConfig(learning_rate=1e-3),
        train=TrainConfig(epochs=2, precision=Precision.FP32, log_every=1),
    )
    return changed(config, **sections)


def changed(config: Config, /, **sections: dict[str, Any]) -> Config:
    """Replace single fields of sections: changed(config, train={"seed": 1})."""
    new = {name: dataclasses.replace(getattr(config, name), **fields) for name, fields in sections.items()}
    return dataclasses.replace(config, **new)


def make_collator(config: Config, passages: list[Passage]) -> Collator:
    """Tokenise passages and cut them into windows."""
    tokenizer = load_tokenizer(config.model)
    corpus, template = corpus_of(passages, tokenizer), learn_template(tokenizer, load_settings(config.model))
    windows = make_windows(corpus, config.window, template)
    return Collator(corpus, windows, template, config.batch.pad_to_multiple_of, config.window.max_length)


def cpu_accelerator(precision: str = "no") -> Accelerator:
    """A new accelerator; its state is the process's, and would keep the precision of the one before."""
    AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(mixed_precision=precision, cpu=True)


@dataclasses.dataclass
class Run:
    """A training loop with what it is made of, and what it recorded."""

    loop: TrainingLoop
    model: PreTrainedModel
    accelerator: Accelerator
    collator: Collator
    records: list[Progress]

    def metric(self, name: str) -> list[float]:
        """Values of one metric, record after record."""
        return [record.metrics[name] for record in self.records]

    def train(self) -> "Run":
        """Train to the end."""
        while not self.loop.finished:
            self.loop.train_epoch()
        return self


def make_run(
    config: Config,
    passages: list[Passage],
    *,
    accelerator: Accelerator | None = None,
    collator: Collator | None = None,
    model: PreTrainedModel | None = None,
    before: Callable[[PreTrainedModel], None] = lambda model: None,
) -> Run:
    """Load the model, do `before` with it, and set up the loop."""
    records: list[Progress] = []
    model = model or load_model(packed(config.model) if config.batch.packing else config.model)
    before(model)
    collator = collator or make_collator(config, passages)
    if config.batch.packing:
        collator = dataclasses.replace(collator, first_position=first_position(model))
    accelerator = accelerator or cpu_accelerator()
    loop = TrainingLoop(config, collator, model, accelerator, records.append)
    return Run(loop, model, accelerator, collator, records)


def weights_of(run: Run) -> torch.Tensor:
    """All weights of a run's model, [num_weights]."""
    return torch.cat([weight.detach().flatten() for weight in run.model.parameters()])


def poison(model: PreTrainedModel) -> None:
    """Make every logit of the model infinite."""
    with torch.no_grad():
        model.qa_outputs.bias.fill_(torch.inf)


def scaling_accelerator(scale: float) -> Accelerator:
    """An accelerator that scales gradients on a CPU as it does for fp16 on a GPU."""
    accelerator = cpu_accelerator()
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale, backoff_factor=2.0**-10)
    accelerator.native_amp = True
    accelerator.state._mixed_precision = "fp16"
    return accelerator

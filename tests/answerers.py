"""Answerers of tiny models, saved as training leaves them, and the questions that tests put to them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import changed, cpu_accelerator, made_passages, make_collator, tiny_config

from qa_ray.answers.answerer import QuestionAnswerer
from qa_ray.config.fine_tuning import Config, EvalConfig, ModelConfig, WindowConfig
from qa_ray.model.folder import save_model
from qa_ray.model.loading import load_model, load_tokenizer
from qa_ray.schema import Answered, Passage
from qa_ray.scores.results import Evaluation
from qa_ray.training.evaluator import Evaluator

MAX_ANSWER_LENGTH = 6
SHORT_WINDOW = WindowConfig(max_length=48, stride=8)
ALL = 100_000
"""More answers than there are spans."""
PASSAGES = made_passages(6, unanswerable=2, num_words=(12, 40))
QUESTIONS = [passage.questions[0].text for passage in PASSAGES]
CONTEXTS = [passage.context for passage in PASSAGES]
ONE = ("Which river?", "The river Vltava flows through Prague.")
TWO = ("Who built it?", "Charles built the bridge in the town.")


def save_decisive(
    family: str,
    source: Path,
    target: Path,
    *,
    threshold: float | None = None,
    evaluated: bool = False,
    passages: list[Passage] = PASSAGES,
) -> Evaluation:
    """Save the tiny model in `source` with scores far apart and windows of 14 context tokens; return its evaluation.

    With `evaluated` it is saved with the threshold of that evaluation.
    """
    config = tiny_config(source, evaluate={"n_best": 5, "max_answer_length": MAX_ANSWER_LENGTH})
    collator = make_collator(changed(config, window={"max_length": 512}), passages)
    length = int(collator.corpus.question_lengths.max()) + collator.template.num_special + 14
    config = changed(config, window={"max_length": length, "stride": 8})
    model = load_model(config.model).eval()
    with torch.no_grad():
        getattr(model, "classifier" if family == "modernbert" else "qa_outputs").weight.mul_(100)
    evaluate = Evaluator(make_collator(config, passages), config.evaluate, no_answer=evaluated or threshold is not None)
    result = evaluate(model, cpu_accelerator())
    assert result is not None
    saved_threshold = result.metrics["threshold"] if evaluated else threshold
    save_model(target, model, load_tokenizer(config.model), config, saved_threshold)
    return result


def save_scattered(folder: Path, tiny: Path, *, seed: int, threshold: float | None, **evaluate: Any) -> None:
    """Save the tiny BERT in `tiny` with a random head, whose scores are far apart, and with short windows."""
    config = Config(model=ModelConfig(name=str(tiny)), window=SHORT_WINDOW, evaluate=EvalConfig(**evaluate))
    model = load_model(config.model)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model.qa_outputs.weight.normal_()
    save_model(folder, model, load_tokenizer(config.model), config, threshold)


def open_cpu(folder: Path, **options: Any) -> QuestionAnswerer:
    """Open a model on the CPU."""
    return QuestionAnswerer.from_pretrained(str(folder), device="cpu", **options)


def texts(results: list[Answered]) -> list[str]:
    """The answers alone."""
    return [result["answer"] for result in results]


def by_place(answers: list[Answered]) -> dict[tuple[int, int], float]:
    """Score of each answer by its place: in an order that rounding does not change."""
    found = {(answer["start"], answer["end"]): answer["score"] for answer in answers}
    assert len(found) == len(answers), "a place comes twice"
    return found


def assert_close(found: list[list[Answered]], expected: list[list[Answered]]) -> None:
    """Answers at the same places, with about the same scores, question by question."""
    for mine, other in zip(found, expected, strict=True):
        assert by_place(mine) == pytest.approx(by_place(other), abs=1e-4)


def assert_same(found: list[dict[str, Any]], expected: list[Any]) -> None:
    """The written rows `found` hold these answers, whose scores may differ by rounding."""
    assert len(found) == len(expected)
    for mine, other in zip(found, expected, strict=True):
        assert {name: mine[name] for name in ("answer", "start", "end")} == {
            name: other[name] for name in ("answer", "start", "end")
        }
        assert mine["score"] == pytest.approx(other["score"], abs=1e-5)


def shapes(answerer: QuestionAnswerer, *arguments: Any, **keywords: Any) -> list[tuple[int, int]]:
    """Windows and padded length of each batch that a call runs."""
    seen: list[tuple[int, int]] = []
    hook = answerer.model.register_forward_pre_hook(
        lambda module, args, inputs: seen.append(tuple(inputs["input_ids"].shape)), with_kwargs=True
    )
    answerer(*arguments, **keywords)
    hook.remove()
    return seen

"""Folders of finished runs for tests: a tiny model with random weights, made answers, and their scores."""

import dataclasses
import json
from pathlib import Path

from families import FAMILIES
from small_runs import tiny_config

from qa_ray.model.folder import save_model
from qa_ray.model.loading import load_model, load_tokenizer
from qa_ray.runs.resume import Example, TrainResult
from qa_ray.scores.metrics import squad_scores, squad_v2_scores
from qa_ray.storage.run_folder import CONFIG, EVALUATION, INTERVALS, MODEL, RunFolder

CONTEXT = "The river flows north. The bridge was built by the king of the old town."
_ANSWERS = [("north", "north"), ("the king", "king of the old town"), ("The river", "The bridge"), ("town", "town")]
"""Reference and prediction of each question."""


def finished_run(folder: Path, *, name: str = "first", family: str = "bert", unanswerable: int = 0) -> RunFolder:
    """Write a run; with `unanswerable` questions its scores are SQuAD v2.0's."""
    base, data = folder / "base", folder / "dev.json"
    FAMILIES[family].save(base)
    config = tiny_config(base, data={"train": "s3://bucket/train.json?region=x", "validation": str(data)})
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, name=name))
    run = RunFolder(str(folder), name)
    references = {f"q{number}": [gold] for number, (gold, _) in enumerate(_ANSWERS)}
    references |= {f"u{number}": [] for number in range(unanswerable)}
    predictions = {f"q{number}": text for number, (_, text) in enumerate(_ANSWERS)}
    predictions |= {f"u{number}": "town" for number in range(unanswerable)}
    _write_squad(data, references)
    if unanswerable:
        odds = {key: 2.0 if key.startswith("u") else -1.0 for key in references}
        odds[f"u{unanswerable - 1}"] = -2.0
        metrics = squad_v2_scores(predictions, references, odds)
        predictions = {key: "" if odds[key] > metrics["threshold"] else text for key, text in predictions.items()}
    else:
        metrics = squad_scores(predictions, references)
    run.write(CONFIG, json.dumps(dataclasses.asdict(config)).encode())
    run.write(f"{EVALUATION}/metrics.json", json.dumps(metrics | {"loss": 1.0}).encode())
    run.write(f"{EVALUATION}/predictions.json", json.dumps(predictions).encode())
    scores = {key: value for key, value in metrics.items() if key in ("exact_match", "f1", "NoAns_f1")}
    intervals = {key: {"mean": value, "low": value - 5, "high": value + 5} for key, value in scores.items()}
    run.write(INTERVALS, json.dumps(intervals).encode())
    model, tokenizer = load_model(config.model), load_tokenizer(config.model)
    save_model(folder / name / MODEL, model, tokenizer, config, metrics.get("threshold"))
    TrainResult(
        folder=run.uri,
        epochs=2,
        step=8,
        before={"eval_exact_match": 1.5, "eval_f1": 2.5},
        best={f"eval_{key}": value for key, value in metrics.items()},
        examples=[Example("Who built the bridge?", "king of the old town", ["the king"])],
        record="",
        ledger="",
        data="",
    ).save(run)
    return run


def change(run: RunFolder, name: str, **fields: object) -> None:
    """Replace fields of one of the run's JSON files."""
    run.write(name, json.dumps(json.loads(run.read(name) or b"") | fields).encode())


def _write_squad(path: Path, references: dict[str, list[str]]) -> None:
    questions = [
        {
            "id": key,
            "question": f"What is {key}?",
            "answers": [{"text": text, "answer_start": CONTEXT.index(text)} for text in texts],
        }
        for key, texts in references.items()
    ]
    paragraphs = [{"context": CONTEXT, "qas": questions}]
    path.write_text(json.dumps({"data": [{"title": "made", "paragraphs": paragraphs}]}), encoding="utf-8")

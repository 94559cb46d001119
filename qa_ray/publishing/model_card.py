"""The model card: what a run has recorded, and nothing else, for people and for the Hub's own pages."""

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from huggingface_hub import EvalResult, EvalResultEntry, ModelCard, ModelCardData, eval_result_entries_to_yaml
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id, yaml_dump

from qa_ray.config.answering import NUM_RESAMPLES
from qa_ray.config.policies import Language
from qa_ray.locations import PACKAGE_SCHEME, is_local
from qa_ray.publishing.run_record import RunRecord
from qa_ray.tracking.metrics import EVAL_PREFIX

# Named as the official SQuAD scripts name them.
_SCORES = {
    "exact_match": "Exact match",
    "f1": "F1",
    "HasAns_exact": "Exact match, answerable questions",
    "HasAns_f1": "F1, answerable questions",
    "NoAns_exact": "Exact match, unanswerable questions",
    "NoAns_f1": "F1, unanswerable questions",
    "best_exact": "Exact match at its own best threshold",
    "best_f1": "F1 at its own best threshold",
}
_SECTIONS = ("model.", "data.", "window.", "batch.", "optim.", "train.", "evaluate.")
_UNTOLD = ("data.columns.", "data.on_bad_row", "train.log_every", "evaluate.before_training")
_PLACES = ("model.name", "model.tokenizer", "data.train", "data.validation")


def make_card(
    record: RunRecord, repo_id: str, *, revision: str | None, license: str | None, context_first: bool
) -> ModelCard:
    """Write the card of a run's model.

    Args:
        record: what the run has recorded.
        repo_id: USER/NAME, where the model will be.
        revision: its branch, if not the main one.
        license: the Hub's name of the model's licence; none is stated without it.
        context_first: whether the model takes the context before the question.
    """
    data = ModelCardData(
        base_model=base_model(record),
        datasets=record.config["data"]["hub"],
        eval_results=list(_eval_results(record)),
        library_name="transformers",
        license=license,
        metrics=["exact_match", "f1"],
        model_name=repo_id,
        pipeline_tag="question-answering",
        tags=["extractive-question-answering", "qa_ray"],
    )
    sections = [
        f"# {repo_id}",
        _summary(record),
        "## Results",
        _results(record),
        "## Use",
        _usage(record, repo_id, revision, context_first),
        "## Training",
        _training(record),
        "## Licence and limits",
        _limits(record, license),
    ]
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(sections) + "\n")


def benchmark_entry(record: RunRecord, task: str) -> str:
    """The score as the Hub's own `.eval_results/*.yaml`: F1, for a task of the Hub data set that measured it."""
    data = record.config["data"]
    exact_match = f"{record.metrics['exact_match']:.2f}"
    entry = EvalResultEntry(
        dataset_id=data["hub"],
        task_id=task,
        value=round(record.metrics["f1"], 4),
        dataset_revision=data["revision"],
        notes=f"F1 in percent; exact match {exact_match}",
    )
    text: str = yaml_dump(eval_result_entries_to_yaml([entry]))
    return text


def base_model(record: RunRecord) -> str | None:
    """Hub id of the model that was fine-tuned; None if it came from elsewhere."""
    name: str = record.config["model"]["name"]
    try:
        validate_repo_id(name)
    except HFValidationError:
        return None
    return None if Path(name).exists() else name


def _summary(record: RunRecord) -> str:
    [kind] = record.architecture.get("architectures") or [record.architecture["model_type"]]
    return (
        "Extractive question answering: the answer is a span of the given context"
        + (", or that the context holds none" if _may_abstain(record) else "")
        + f". `{kind}`, fine-tuned from `{_place(record.config['model']['name'])}` on {_data(record, 'train')} with "
        "qa_ray."
    )


def _may_abstain(record: RunRecord) -> bool:
    return record.answers["no_answer_threshold"] is not None


def _data(record: RunRecord, split: str) -> str:
    data = record.config["data"]
    limit = data[f"max_{split}_examples"]
    part = f", the first {limit} questions" if limit else ""
    share = data.get("validation_share")
    if share is not None:
        part = f", {100 * (share if split == 'validation' else 1 - share):.3g}% of its contexts{part}"
    place = _place(_location(data, split))
    return f"`{data['hub']}`, split `{place}`{part}" if data["hub"] else f"`{place}`{part}"


def _location(data: Mapping[str, Any], split: str) -> str:
    """Where the questions of a split were read, by a run's record, which may be older than the share."""
    location: str = data["train" if data.get("validation_share") is not None else split]
    return location


def _place(location: str) -> str:
    """A file as it was named, without folders of a private machine and without a filesystem's options."""
    if is_local(location):
        return PurePosixPath(location).name if location.startswith(("/", "~")) else location
    return location if location.startswith(PACKAGE_SCHEME) else location.partition("?")[0]


def _eval_results(record: RunRecord) -> Iterator[EvalResult]:
    data = record.config["data"]
    name = data["hub"] or _place(_location(data, "validation"))
    for metric, label in _recorded(record):
        yield EvalResult(
            task_type="question-answering",
            task_name="Extractive question answering",
            dataset_type=name,
            dataset_name=name,
            dataset_config=data["hub_config"],
            dataset_split=_location(data, "validation") if data["hub"] else None,
            dataset_revision=data["revision"],
            metric_type=metric,
            metric_name=label,
            metric_value=round(record.metrics[metric], 4),
        )


def _recorded(record: RunRecord) -> list[tuple[str, str]]:
    return [(metric, label) for metric, label in _SCORES.items() if metric in record.metrics]


def _results(record: RunRecord) -> str:
    before, intervals = record.before, record.intervals
    head = ["score", "value", *["95% interval"] * bool(intervals), *["before fine-tuning"] * bool(before)]
    rows = []
    for metric, label in _recorded(record):
        row = [label, f"{record.metrics[metric]:.2f}"]
        if intervals:
            known = intervals.get(metric)
            row.append(f"{known.low:.2f} to {known.high:.2f}" if known else "")
        if before:
            row.append(f"{before[EVAL_PREFIX + metric]:.2f}" if EVAL_PREFIX + metric in before else "")
        rows.append(row)
    told = f"On {int(record.metrics['total'])} questions of {_data(record, 'validation')}, in percent."
    told += f" Texts are compared by {Language(record.config['evaluate'].get('language', Language.SQUAD)).rule}."
    if intervals:
        told += f" Intervals: percentile bootstrap over the questions, {NUM_RESAMPLES} resamples."
    return f"{told}\n\n{_table(head, rows)}"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _usage(record: RunRecord, repo_id: str, revision: str | None, context_first: bool) -> str:
    source = f'"{repo_id}"' + (f', revision="{revision}"' if revision else "")
    answers, context = record.answers, 0 if context_first else 1
    pair = "context, question" if context_first else "question, context"
    return f"""With qa_ray, which cuts long contexts into windows and decides whether there is an answer:

```python
from qa_ray.answers import QuestionAnswerer

answerer = QuestionAnswerer.from_pretrained({source})
print(answerer(question="Who laid the first stone?", context="Charles IV laid the first stone in 1357."))
```

With transformers alone, for a context that fits in one window; this always gives an answer:

```python
import torch
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({source})
model = AutoModelForQuestionAnswering.from_pretrained({source})
question, context = "Who laid the first stone?", "Charles IV laid the first stone in 1357."
inputs = tokenizer({pair}, return_offsets_mapping=True, return_tensors="pt")
offsets = inputs.pop("offset_mapping")[0]
with torch.no_grad():
    outputs = model(**inputs)
inside = torch.tensor([owner == {context} for owner in inputs.sequence_ids(0)])
legal = (inside[:, None] & inside).triu().tril({answers["max_answer_length"] - 1})
scores = (outputs.start_logits[0][:, None] + outputs.end_logits[0]).masked_fill(~legal, -torch.inf)
first, last = divmod(int(scores.argmax()), len(inside))
print(context[offsets[first, 0] : offsets[last, 1]].strip())
```"""


def _training(record: RunRecord) -> str:
    rows = [
        [f"`{name}`", f"`{_place(value) if name in _PLACES else value}`"]
        for name, value in record.settings()
        if (name != "data.validation" or record.config["data"].get("validation_share") is None)
        if name.startswith(_SECTIONS) and not name.startswith(_UNTOLD) and value is not None
    ]
    version: Any = record.architecture.get("transformers_version")
    saved = f" The model was saved by transformers {version}." if version else ""
    made_with = [[f"`{name}`", value] for name, value in record.environment.items()]
    chosen = f"The model kept is that of the epoch with the best validation `{record.config['evaluate']['best_by']}`"
    so_far = "" if record.finished else f" Training was going on: it is the best model up to step {record.step}."
    parts = [f"Trained on {_data(record, 'train')}. {chosen}.{so_far}{saved}", _table(["setting", "value"], rows)]
    if made_with:
        parts += ["It was made with:", _table(["what", "which"], made_with)]
    return "\n\n".join(parts)


def _limits(record: RunRecord, license: str | None) -> str:
    answers = record.answers
    lines = [
        f"Licence: `{license}`." if license else "No licence has been stated for this model.",
        f"Answers are copied from the context and are at most {answers['max_answer_length']} tokens long. The scores "
        f"hold for windows of {answers['max_length']} tokens that share {answers['stride']}.",
        "No other measurement was recorded than the one above, by which the epoch that is kept was also chosen.",
    ]
    if _may_abstain(record):
        lines.append(
            f"No answer is given where its score exceeds the best answer's by more than "
            f"{answers['no_answer_threshold']:g}. This threshold was searched on the same questions that the scores "
            "are of."
        )
    return "\n\n".join(lines)

"""What a run has to show, in words."""

from collections.abc import Mapping

from qa_ray.locations import is_local, within
from qa_ray.runs.resume import Example, TrainResult
from qa_ray.storage.layout import EVALUATION, MODEL, REPORT
from qa_ray.tracking.metrics import EVAL_PREFIX

_NO_ANSWER = "(no answer)"


def summary(result: TrainResult) -> str:
    """Scores before and after, some answers, and where everything lies."""
    lines = []
    if not result.trained_now:
        lines = ["", "This run was finished before: nothing was trained. For a new one choose another --run.name;"]
        lines += [f"for more epochs than {result.epochs} set --train.epochs."]
    lines += ["", "Some validation questions:"]
    for example in result.examples:
        lines += _example(example)
    lines += ["", *_scores(result.before, result.best), ""]
    lines += [
        f"run     {result.folder}",
        f"model   {within(result.folder, MODEL)}",
        f"answers {within(result.folder, f'{EVALUATION}/predictions.json')}",
        f"report  {within(result.folder, REPORT)}",
        f"MLflow  {result.record}",
    ]
    lines += [f"        {text}" for text in (result.logged_model, result.registered) if text]
    if is_local(result.folder):
        lines += [
            "",
            "Open the model with:",
            f'  AutoModelForQuestionAnswering.from_pretrained("{result.folder}/{MODEL}")',
        ]
    return "\n".join(lines)


def _example(example: Example) -> list[str]:
    expected = " | ".join(dict.fromkeys(example.references)) or _NO_ANSWER
    return [
        f"  {example.question}",
        f"    predicted: {example.predicted or _NO_ANSWER}",
        f"    expected:  {expected}",
    ]


def _scores(before: Mapping[str, float] | None, best: Mapping[str, float]) -> list[str]:
    names = [name for name in ("exact_match", "f1", "HasAns_f1", "NoAns_f1") if EVAL_PREFIX + name in best]
    head = f"{'':<10}" + "".join(f"{name:>14}" for name in names)
    rows = [("before", before)] if before else []
    rows += [("after", best)]
    return [head] + [
        f"{label:<10}" + "".join(f"{row[EVAL_PREFIX + name]:14.2f}" for name in names) for label, row in rows
    ]

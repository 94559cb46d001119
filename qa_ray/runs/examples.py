"""Some validation questions of a finished run, to be looked at: which ones, and how they are shown."""

import numpy as np

from qa_ray.answers.marking import NO_ANSWER, RESET, Excerpt, Verdict, excerpt
from qa_ray.runs.resume import Example
from qa_ray.scores.metrics import exact_match, f1
from qa_ray.scores.question_table import QuestionTable

_NUM_EXAMPLES = 5
# Multiples of the golden ratio, taken from 0 to 1, are spread evenly however many are taken.
_GOLDEN = 0.6180339887
_LABELS = {Verdict.RIGHT: "right", Verdict.PARTLY: "in part", Verdict.WRONG: "wrong"}
_INDENT = " " * 10


def choose_examples(table: QuestionTable) -> list[Example]:
    """Four questions that are answered rightly, and then one that is not, as far as there are such."""
    order = np.argsort(np.arange(len(table)) * _GOLDEN % 1, kind="stable")
    right = table.scores.exact_match == 1
    some, silent = right & table.has_answer, right & ~table.has_answer
    chosen: list[int] = []
    for group, number in ((some, 3), (silent, 1), (~right, 1), (right, _NUM_EXAMPLES), (~right, _NUM_EXAMPLES)):
        others = [place for place in order[group[order]].tolist() if place not in chosen]
        chosen += others[: min(number, _NUM_EXAMPLES - len(chosen))]
    return [_example(table, place) for place in sorted(chosen, key=lambda place: not right[place])]


def _example(table: QuestionTable, place: int) -> Example:
    start, end = table.predicted_span[place].tolist()
    return Example(
        table.texts[place],
        table.predictions[place],
        list(table.references[place]),
        excerpt(table.contexts[place], start, end) if start >= 0 else None,
        table.language,
    )


def shown(example: Example, *, colour: bool) -> list[str]:
    """Lines that show a question, its answer within its sentence and, where it was missed, the expected one."""
    verdict = verdict_on(example)
    label = f"{_LABELS[verdict]:<8}"
    lines = [f"  {f'{verdict.value}{label}{RESET}' if colour else label}{example.question}"]
    if not example.predicted:
        lines += [f"{_INDENT}{NO_ANSWER}"]
    else:
        found = example.excerpt or Excerpt("", example.predicted, "")
        lines += [f"{_INDENT}{found.marked(colour=colour, verdict=verdict)}"]
    if verdict is not Verdict.RIGHT:
        lines += [f"{_INDENT}expected: {' | '.join(dict.fromkeys(example.references)) or NO_ANSWER}"]
    return lines


def verdict_on(example: Example) -> Verdict:
    """Whether the predicted answer is one of the references, has words of one, or is none."""
    references = example.references or [""]
    if exact_match(example.predicted, references, example.language):
        return Verdict.RIGHT
    return Verdict.PARTLY if f1(example.predicted, references, example.language) else Verdict.WRONG

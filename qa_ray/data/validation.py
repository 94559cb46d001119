"""What is wrong with a row, in words: the record, the field, its value, and what to mend.

The message of a problem opens with a fixed phrase, up to the first colon or semicolon, so that problems can be counted
by kind.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from qa_ray.errors import DataError
from qa_ray.schema import Answer, Bools, Passage, Problem, Question

WHOLE_FILE = "file"
"""Field of a problem that makes a whole file unreadable: it stops the run, whatever data.on_bad_row says."""

CONTRADICTORY = "expected no answers where is_impossible is true"

_SHOWN = 80
_INT32 = 2**31


class RowError(DataError):
    """A row cannot be used; caught where rows are read, and kept as a problem."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


def shown(value: object) -> str:
    """Return `value` as it is shown in messages: quoted if it is text, on one line, cut to 80 characters."""
    try:
        text = repr(value[:_SHOWN] if isinstance(value, str | bytes) else value)
    except RecursionError:
        return "(too deep to be shown)"
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def expect_text(record: str, field: str, value: object) -> str:
    """Return `value` if it is text that can be stored; bytes are text in UTF-8.

    Raises:
        RowError: it is not text or not UTF-8, or holds half of a surrogate pair, which no file in UTF-8 can.
    """
    try:
        text = value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError as error:
        raise RowError(Problem(record, field, shown(value), "is not UTF-8")) from error
    if not isinstance(text, str):
        raise RowError(Problem(record, field, shown(value), "expected text"))
    try:
        text.encode()
    except UnicodeEncodeError as error:
        message = "expected Unicode text; it holds half a surrogate pair"
        raise RowError(Problem(record, field, shown(value), message)) from error
    return text


def expect_id(record: str, field: str, value: object) -> str:
    """Return `value` as a question's id; a number becomes text.

    Raises:
        RowError: it is neither text nor a number.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # pandas makes a column of integers floats where one is missing
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str | bytes):
        raise RowError(Problem(record, field, shown(value), "expected text or a whole number"))
    return expect_text(record, field, value)


def expect_position(record: str, field: str, value: object) -> int:
    """Return `value` if it is a whole number of 32 bits.

    Raises:
        RowError: it is not.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not -_INT32 <= value < _INT32:
        message = "expected a whole number: the place of the answer's first character in the context, counted from 0"
        raise RowError(Problem(record, field, shown(value), message))
    return value


def is_fatal(problem: Problem) -> bool:
    """Whether `problem` stops the run, whatever data.on_bad_row says."""
    return problem.field == WHOLE_FILE


def check(passage: Passage) -> tuple[Passage, list[Problem]]:
    """Return the passage with only its sound questions, and what is wrong with the others."""
    blank_context = not passage.context.strip()
    sound: list[Question] = []
    problems: list[Problem] = []
    for question in passage.questions:
        found = _question_problems(question, passage.context, blank_context)
        problems.extend(found)
        if not found:
            sound.append(question)
    return (replace(passage, questions=tuple(sound)) if problems else passage), problems


def _question_problems(question: Question, context: str, blank_context: bool) -> list[Problem]:
    problems = []
    for field, value in (("id", question.id), ("question", question.text)):
        if not value.strip():
            problems.append(Problem(question.record, field, shown(value), "is empty"))
    if blank_context:
        problems.append(Problem(question.record, "context", shown(context), "is empty"))
        return problems
    for index, answer in enumerate(question.answers):
        problem = _answer_problem(question.record, f"answers[{index}]", answer, context)
        if problem is not None:
            problems.append(problem)
    return problems


def _answer_problem(record: str, field: str, answer: Answer, context: str) -> Problem | None:
    if not answer.text.strip():
        message = "is empty: give the text, or no answers at all where the context holds none"
        return Problem(record, f"{field}.text", shown(answer.text), message)
    start = answer.answer_start
    if start >= 0 and context.startswith(answer.text, start):
        return None
    found = "is negative" if start < 0 else f"answer is not there: {_what_stands(context, start, len(answer.text))}"
    message = f"{found}; {_remedy(answer, context)}"
    return Problem(record, f"{field}.answer_start", str(start), message)


def _what_stands(context: str, start: int, length: int) -> str:
    if start >= len(context):
        return f"the context ends after {len(context)} characters"
    return f"there stands {shown(context[start : start + length])}"


def _remedy(answer: Answer, context: str) -> str:
    nearest = _nearest(context, answer.text, answer.answer_start)
    if nearest is None:
        return f"the answer {shown(answer.text)} is nowhere in the context: mend its text"
    hint = "" if context.isascii() else " (characters are counted, not bytes)"
    return f"the answer {shown(answer.text)} stands at {nearest}: set answer_start to {nearest}{hint}"


def _nearest(context: str, text: str, start: int) -> int | None:
    start = min(max(start, 0), len(context))
    places = (context.rfind(text, 0, start + len(text)), context.find(text, start))
    return min((place for place in places if place >= 0), key=lambda place: abs(place - start), default=None)


def first_uses(ids: Sequence[str], records: Sequence[str]) -> tuple[list[int], list[Problem]]:
    """Return the places of the questions whose id is new, and a problem for every other question of a split.

    `records[i]` tells where the question with `ids[i]` was read.
    """
    first: dict[str, int] = {}
    problems = []
    for place, identifier in enumerate(ids):
        before = first.setdefault(identifier, place)
        if before != place:
            message = f"is used twice: first in {records[before]}; give each question its own id"
            problems.append(Problem(records[place], "id", shown(identifier), message))
    return list(first.values()), problems


def describe(problems: Sequence[Problem], limit: int = 10) -> str:
    """Return the text of the error that stops a run: how many problems of each kind, and the first `limit`."""
    kinds = Counter(_kind(problem) for problem in problems)
    lines = [f"{len(problems)} {'problem' if len(problems) == 1 else 'problems'} in the data:"]
    lines += [f"  {count} x {kind}" for kind, count in kinds.most_common()]
    lines += ["The first of them:" if len(problems) > limit else "In full:"]
    lines += [f"  {problem}" for problem in problems[:limit]]
    return "\n".join(lines)


def _kind(problem: Problem) -> str:
    field = re.sub(r"\[\d+\]", "", problem.field)
    return f"{field} {re.split('[:;]', problem.message, maxsplit=1)[0]}"


def count_rows(problems: Iterable[Problem]) -> int:
    """Return how many rows are left out: a row may have several problems."""
    return len({problem.record for problem in problems})


def alarms(problems: Sequence[Problem], answered: Bools) -> list[str]:
    """Return what must not be overlooked of rows that were left out.

    Args:
        problems: why they were.
        answered: of each question that is left, whether it has an answer.
    """
    found = []
    num_rows, total = count_rows(problems), count_rows(problems) + len(answered)
    if num_rows > len(answered):
        kinds = ", ".join(f"{count} x {kind}" for kind, count in Counter(map(_kind, problems)).most_common(3))
        found.append(f"MOST OF THE DATA IS LEFT OUT, {num_rows} of {total} rows: {kinds}")
    num_silent = count_rows(problem for problem in problems if _says_no_answer(problem))
    if num_silent and answered.all():
        found.append(
            f"EVERY QUESTION WITHOUT AN ANSWER IS LEFT OUT, {num_silent} rows: a model that is trained on the rest "
            "answers always. Mend them, or set data.impossible_answers=ignore where their answers are only plausible"
        )
    if problems and not answered.any():
        found.append("EVERY QUESTION WITH AN ANSWER IS LEFT OUT: there is no answer to learn from")
    return found


def _says_no_answer(problem: Problem) -> bool:
    """Whether a row that cannot be used means that there is no answer, as many tools write it."""
    is_empty = problem.field.endswith(".text") and problem.message.startswith("is empty")
    is_nowhere = "answer_start" in problem.field and (
        problem.value in ("None", "nan", "''")
        or (problem.message.startswith("is negative") and "is nowhere" in problem.message)
    )
    return is_empty or is_nowhere or problem.message.startswith(CONTRADICTORY)


def write_problems(problems: Iterable[Problem], path: str | Path) -> None:
    """Write problems to the local file `path`, as one JSON object a line."""
    with Path(path).open("w", encoding="utf-8") as file:
        for problem in problems:
            file.write(json.dumps(asdict(problem), ensure_ascii=False) + "\n")

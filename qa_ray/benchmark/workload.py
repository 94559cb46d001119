"""What every case of the benchmark starts from: a recipe, its tokenizer, and passages in memory."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerFast as FastTokenizer

from qa_ray.config.data import DataConfig
from qa_ray.config.fine_tuning import Config
from qa_ray.data.collate import Collator
from qa_ray.data.corpus import Corpus
from qa_ray.data.passages import read_split
from qa_ray.data.template import Template
from qa_ray.data.tokenization import parse_tokenizer, tokenize
from qa_ray.data.validation import check, describe
from qa_ray.errors import DataError
from qa_ray.model.loading import learn_template, load_settings, load_tokenizer
from qa_ray.runs.worker import make_collator
from qa_ray.schema import Passage, Question


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The same examples for both ways."""

    config: Config
    tokenizer: FastTokenizer
    template: Template
    passages: list[Passage]

    @classmethod
    def read(cls, config: Config, location: str) -> "Workload":
        """Read the questions at `location`.

        Raises:
            DataError: it cannot be read, or has a row that cannot be used.
        """
        passages, problems = read_split(DataConfig(), location)
        problems += [problem for passage in passages for problem in check(passage)[1]]
        if problems or not passages:
            raise DataError(f"--data={location}: {describe(problems) if problems else 'it holds no question'}")
        tokenizer = load_tokenizer(config.model)
        template = learn_template(tokenizer, load_settings(config.model))
        return cls(config=config, tokenizer=tokenizer, template=template, passages=passages)

    @cached_property
    def rows(self) -> Dataset:
        """The questions as the standard way has them: columns id, question, context, answers."""
        return rows_of(self.passages)

    @cached_property
    def collator(self) -> Collator:
        """All windows, as ours has them."""
        return self.featurise(self.passages)

    def featurise(self, passages: list[Passage]) -> Collator:
        """Passages to labelled windows, our way."""
        sound = [check(passage)[0] for passage in passages]
        backend = parse_tokenizer(self.tokenizer.backend_tokenizer.to_str())
        return make_collator(self.config, Corpus([tokenize(sound, [], backend)]), self.template)


def rows_of(passages: list[Passage]) -> Dataset:
    """A row for each question, with the columns of SQuAD on the Hub."""
    pairs = [(passage.context, question) for passage in passages for question in passage.questions]
    answers = [
        {"text": [a.text for a in question.answers], "answer_start": [a.answer_start for a in question.answers]}
        for _, question in pairs
    ]
    columns = {
        "id": [question.id for _, question in pairs],
        "context": [context for context, _ in pairs],
        "question": [question.text for _, question in pairs],
    }
    return Dataset.from_dict(columns | {"answers": answers})


def to_squad(passages: Iterable[Passage], title: str) -> dict[str, Any]:
    """Return passages as one article of SQuAD JSON version 2.0, to be written with json.dump."""
    paragraphs = [
        {"context": passage.context, "qas": [_to_qa(question) for question in passage.questions]}
        for passage in passages
    ]
    return {"version": "v2.0", "data": [{"title": title, "paragraphs": paragraphs}]}


def _to_qa(question: Question) -> dict[str, Any]:
    answers = [{"text": answer.text, "answer_start": answer.answer_start} for answer in question.answers]
    return {"id": question.id, "question": question.text, "answers": answers, "is_impossible": not answers}

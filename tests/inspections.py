"""Splits as the inspection has them, made from passages without Ray."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from small_runs import make_collator, tiny_config

from qa_ray.data.corpus import view
from qa_ray.data.digests import context_keys
from qa_ray.data.tokenization import parse_tokenizer, tokenize
from qa_ray.inspection.findings import find
from qa_ray.inspection.job import Inspection
from qa_ray.inspection.options import InspectionConfig, as_inspection
from qa_ray.inspection.settings import compare
from qa_ray.inspection.split import InspectedSplit
from qa_ray.model.loading import learn_template, load_tokenizer
from qa_ray.schema import Answer, Passage, Problem, Question


def passage(context: str, *asked: tuple[str, Sequence[str]]) -> Passage:
    """A passage with questions and the texts of their answers, which stand where they come first."""
    return Passage(
        context,
        tuple(
            Question(
                f"{context[:9]}-{number}",
                text,
                tuple(Answer(answer, context.index(answer)) for answer in answers),
                f"{context[:9]} row {number}",
            )
            for number, (text, answers) in enumerate(asked)
        ),
    )


def configured(model: Path, out: Path | str = "inspection", **sections: dict[str, Any]) -> InspectionConfig:
    """Small windows of a tiny model; `sections` replace single fields."""
    return dataclasses.replace(as_inspection(tiny_config(model, **sections)), out=str(out))


def inspected(
    config: InspectionConfig, passages: Sequence[Passage], name: str = "train", problems: Sequence[Problem] = ()
) -> InspectedSplit:
    """A split of these passages."""
    collator = make_collator(config, list(passages))
    backend = parse_tokenizer(load_tokenizer(config.model).backend_tokenizer.to_str())
    keys = context_keys(view(tokenize(passages, [], backend)))
    return InspectedSplit(name, f"{name}.json", tuple(problems), keys, collator.corpus, collator)


def inspection(config: InspectionConfig, *splits: InspectedSplit, refusals: Sequence[str] = ()) -> Inspection:
    """What an inspection of these splits finds."""
    train = next((split for split in splits if split.name == "train"), None)
    return Inspection(
        config=config,
        splits=splits,
        findings={split.name: find(split, config, train) for split in splits},
        settings=tuple(compare(splits, config, learn_template(load_tokenizer(config.model)), 512)),
        refusals=tuple(refusals),
    )

"""Rebuild the sample from its facts and templates: `python -m sample_generator.generate` in the folder tests."""

import json
import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qa_ray.locations import resolve
from sample_generator.passages import make_passage
from sample_generator.questions import ask
from sample_generator.wording import KINDS, load_kind

SAMPLE = Path(resolve("package://qa_ray/data/sample"))
KIND_WEIGHTS = (25, 30, 15, 12, 18)
SEED = 2028


@dataclass(frozen=True, slots=True)
class SplitPlan:
    """How large a split is and how often its passages are long."""

    split: str
    num_questions: int
    long_every: int
    questions_per_passage: int = 5


PLANS = (SplitPlan("train", 1300, 50), SplitPlan("validation", 300, 15))


def build(plan: SplitPlan) -> dict[str, Any]:
    """One split as nested SQuAD v2.0: an article per kind of entity, a paragraph per passage."""
    rng = random.Random(f"{SEED}-{plan.split}")
    kinds = [load_kind(name) for name in KINDS]
    paragraphs: dict[str, list[dict[str, Any]]] = {kind.title: [] for kind in kinds}
    num_uses: Counter[str] = Counter()
    num_passages = num_questions = 0
    while num_questions < plan.num_questions:
        num_passages += 1
        kind = rng.choices(kinds, KIND_WEIGHTS)[0]
        missing = plan.num_questions - num_questions
        passage = make_passage(kind, plan.split, rng, num_uses, is_long=num_passages % plan.long_every == 0)
        qas = ask(passage, plan.split, rng, min(plan.questions_per_passage, missing))
        ids = [f"{plan.split}-{kind.name}-{num_passages:04d}-{index}" for index in range(len(qas))]
        paragraph = {"context": passage.context, "qas": [{"id": id_, **qa} for id_, qa in zip(ids, qas, strict=True)]}
        paragraphs[kind.title].append(paragraph)
        num_questions += len(qas)
    articles = [{"title": title, "paragraphs": entries} for title, entries in paragraphs.items()]
    return {"version": "v2.0", "data": articles}


def serialise(squad: dict[str, Any]) -> str:
    """The text of a split's file, the same on every machine."""
    return json.dumps(squad, ensure_ascii=False, indent=1) + "\n"


def write(folder: Path = SAMPLE) -> None:
    """Write both splits into a folder."""
    for plan in PLANS:
        (folder / f"{plan.split}.json").write_text(serialise(build(plan)), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    write()

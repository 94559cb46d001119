"""The Ray Data graph of a split: read, validate, tokenise, materialise.

Workers take the resulting Arrow blocks from the object store, where a node holds one copy for all of them.
"""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data
from ray.data import DataContext

from qa_ray.config.data import DataConfig
from qa_ray.config.policies import BadRows, DataFormat
from qa_ray.data.corpus import Corpus, view
from qa_ray.data.digests import Digests, context_keys, held_out, text_digests, token_digests
from qa_ray.data.files import SourceFile
from qa_ray.data.passages import find_sources, read_tables
from qa_ray.data.rows import recognised
from qa_ray.data.subset import random_share
from qa_ray.data.tokenization import parse_tokenizer, tokenize
from qa_ray.data.validation import check, describe, first_uses, is_fatal
from qa_ray.errors import DataError
from qa_ray.schema import Bools, Int64s, Problem, UInt64s, table_to_passages

logger = logging.getLogger(__name__)

# So many passages take about a tenth of a second: longer than a task's own cost, short enough to share out.
_PASSAGES_PER_TASK = 512


def passages_dataset(data: DataConfig, location: str, max_examples: int | None) -> ray.data.Dataset:
    """Return the passages at `location` as a lazy Dataset of the schema PASSAGES; rows are not validated yet.

    Each file is read by a task of its own, or all by one where only the first `max_examples` questions are wanted. A
    Hub data set is loaded at once, here.

    Raises:
        DataError: nothing is at `location`.
    """
    sources = find_sources(data, location)
    logger.info("%s: %s", location, recognised(sources))
    rows = [{**asdict(source), "format": str(source.format)} for source in sources if isinstance(source, SourceFile)]
    if not rows:
        dataset = ray.data.from_arrow(pa.concat_tables(read_tables(sources, data, max_examples)))
    else:
        dataset = ray.data.from_items(rows, override_num_blocks=len(rows) if max_examples is None else 1).map_batches(
            _read_files,
            batch_size=None,
            batch_format="pyarrow",
            fn_kwargs={"data": data, "max_examples": max_examples},
        )
    # Blocks are small, so that the next step works on a single big file in parallel. Without strict, Ray fuses
    # reading, this and the next step into one task for each file.
    return dataset.repartition(target_num_rows_per_block=_PASSAGES_PER_TASK, strict=True)


def _read_files(rows: pa.Table, data: DataConfig, max_examples: int | None) -> Iterator[pa.Table]:
    files = [SourceFile(row["location"], row["name"], DataFormat(row["format"])) for row in rows.to_pylist()]
    return read_tables(files, data, max_examples)


@dataclass(frozen=True, slots=True)
class Split:
    """A tokenised split in the object store."""

    name: str
    blocks: tuple[Any, ...]
    """References to tables of schema TOKENIZED."""
    selection: Int64s
    """Questions in use, by their number in the blocks."""
    problems: tuple[Problem, ...]
    """Rows that were left out, and why."""
    has_unanswerable: bool
    """Whether some question in use has no answer."""
    digest: str
    """Of the questions in use, their contexts and reference answers, in their order; the tokenizer changes nothing."""
    token_digest: str
    """Of what the tokenizer made of them: token ids and character offsets."""
    context_keys: UInt64s
    """Of the context of each question in use; equal ones are the same context."""

    def __len__(self) -> int:
        return len(self.selection)

    def corpus(self, share: float = 1.0) -> Corpus:
        """View the split on this node, or a random share of its questions: the same one each time."""
        blocks = ray.get(list(self.blocks))
        whole = Corpus(blocks, self.selection)
        if share == 1:
            return whole
        chosen = random_share([whole.id(question) for question in range(len(whole))], share)
        return Corpus(blocks, self.selection[chosen])


def tokenize_split(data: DataConfig, location: str, *, max_examples: int | None, tokenizer: str) -> Split:
    """Read, validate and tokenise a split, in parallel over the cluster.

    Args:
        data: where and how to read, and what to do with bad rows.
        location: the split's files, or its name in a Hub data set.
        max_examples: uses only the first so many questions.
        tokenizer: text of the tokenizer.json.

    Raises:
        DataError: nothing can be read, a row is bad and `data.on_bad_row` is error, or no question is left.
    """
    found = _read(data, location, max_examples, tokenizer)
    return found.split(found.selection[:max_examples], found.problems)


def tokenize_shares(data: DataConfig, tokenizer: str) -> tuple[Split, Split]:
    """Read, validate and tokenise `data.train`, and take `data.validation_share` of its contexts for validation.

    Returns what is left for training, with all rows that cannot be used, and the validation questions.

    Raises:
        DataError: as `tokenize_split`, or all questions are about one context.
    """
    found = _read(data, data.train, None, tokenizer)
    try:
        chosen = held_out(found.context_keys[found.selection], data.validation_share or 0)
    except DataError as error:
        share, named = data.option("validation_share"), data.option("validation")
        message = f"{data.train}: {error}. Name validation questions with {named}, without {share}"
        raise DataError(message) from error
    train, validation = found.selection[~chosen], found.selection[chosen]
    return (
        found.split(train[: data.max_train_examples], found.problems),
        found.split(validation[: data.max_validation_examples], ()),
    )


def _read(data: DataConfig, location: str, max_examples: int | None, tokenizer: str) -> "_Found":
    # Questions are numbered in the order of the blocks, and the batch plan counts on those numbers.
    context = DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    dataset = passages_dataset(data, location, max_examples).map_batches(
        _tokenize_batch,
        batch_format="pyarrow",
        batch_size=_PASSAGES_PER_TASK,
        fn_kwargs={"definition": ray.put(tokenizer)},
    )
    found = _Found.of(location, dataset.materialize().to_arrow_refs())
    fatal = [problem for problem in found.problems if is_fatal(problem)]
    if fatal or (found.problems and data.on_bad_row is BadRows.ERROR):
        raise DataError(describe(fatal or found.problems))
    if not len(found.selection):
        reason = f"no question is left of it: {describe(found.problems)}" if found.problems else "it holds no question"
        raise DataError(f"{location}: {reason}")
    return found


def _tokenize_batch(table: pa.Table, definition: Any) -> pa.Table:
    # A reference inside keyword arguments reaches the task as a reference: the text travels once a node, not per batch.
    text = ray.get(definition) if isinstance(definition, ray.ObjectRef) else definition
    read, problems = table_to_passages(table)
    sound = []
    for passage in read:
        checked, found = check(passage)
        problems.extend(found)
        if checked.questions:
            sound.append(checked)
    return tokenize(sound, problems, parse_tokenizer(text))


@dataclass(frozen=True, slots=True)
class _Summary:
    """What the driver needs to know of a block, without its tokens."""

    ids: list[str]
    records: list[str]
    answered: Bools
    context_keys: UInt64s
    text_digests: Digests
    token_digests: Digests
    problems: list[Problem]


@ray.remote
def _summarise(table: pa.Table) -> _Summary | None:
    if not table.num_rows:
        return None  # nothing was tokenised, and the block has no columns
    block = view(table)
    questions = pc.list_flatten(table["questions"]).combine_chunks()
    problems = pc.list_flatten(table["problems"]).to_pylist()
    answered = np.asarray(pc.list_value_length(pc.struct_field(questions, "answers"))) > 0
    return _Summary(
        pc.struct_field(questions, "id").to_pylist(),
        pc.struct_field(questions, "record").to_pylist(),
        answered,
        context_keys(block),
        text_digests(block),
        token_digests(block),
        [Problem(**problem) for problem in problems],
    )


@dataclass(frozen=True, slots=True)
class _Found:
    """All that was read at a location; arrays have an element for each question in the blocks."""

    location: str
    blocks: tuple[Any, ...]
    answered: Bools
    context_keys: UInt64s
    text_digests: Digests
    token_digests: Digests
    selection: Int64s
    """Questions whose id is their own."""
    problems: tuple[Problem, ...]

    @classmethod
    def of(cls, location: str, blocks: Sequence[Any]) -> "_Found":
        """Leave out empty blocks, and questions whose id came before."""
        told = zip(blocks, ray.get([_summarise.remote(block) for block in blocks]), strict=True)
        kept = [(block, summary) for block, summary in told if summary is not None]
        summaries = [summary for _, summary in kept]
        ids = [key for summary in summaries for key in summary.ids]
        records = [record for summary in summaries for record in summary.records]
        first_places, repeated = first_uses(ids, records)
        problems = [problem for summary in summaries for problem in summary.problems] + repeated
        return cls(
            location=location,
            blocks=tuple(block for block, _ in kept),
            answered=np.concatenate([np.empty(0, bool), *(summary.answered for summary in summaries)]),
            context_keys=np.concatenate([np.empty(0, np.uint64), *(summary.context_keys for summary in summaries)]),
            text_digests=_joined([summary.text_digests for summary in summaries]),
            token_digests=_joined([summary.token_digests for summary in summaries]),
            selection=np.array(first_places, np.int64),
            problems=tuple(problems),
        )

    def split(self, selection: Int64s, problems: tuple[Problem, ...]) -> Split:
        """Return the selected questions, by their number in the blocks."""
        return Split(
            name=self.location,
            blocks=self.blocks,
            selection=selection,
            problems=problems,
            has_unanswerable=not self.answered[selection].all(),
            digest=_digest(self.text_digests[selection]),
            token_digest=_digest(self.token_digests[selection]),
            context_keys=self.context_keys[selection],
        )


def _joined(parts: Sequence[Digests]) -> Digests:
    return np.concatenate([np.empty((0, 32), np.uint8), *parts])


def _digest(questions: Digests) -> str:
    return hashlib.sha256(questions.tobytes()).hexdigest()

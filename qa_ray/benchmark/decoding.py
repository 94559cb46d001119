"""The benchmark's case of decoding: start and end logits to n-best answer texts, on one thread."""

import time
from functools import partial
from itertools import accumulate

import numpy as np
import torch
from datasets import Dataset

from qa_ray.answers.inference import Decoder
from qa_ray.answers.n_best import find_spans
from qa_ray.benchmark.standard import Answers, evaluation_features, postprocess
from qa_ray.benchmark.timing import Row, Timing, interleave
from qa_ray.benchmark.workload import Workload, rows_of
from qa_ray.config.fine_tuning import EvalConfig
from qa_ray.data.batching import padded_length
from qa_ray.data.collate import Collator
from qa_ray.model.compute import Logits
from qa_ray.schema import Float32s, Int64s, Passage

_MAX_QUESTIONS = 1000
_MAX_TOKENS = 16_384
"""Padded tokens whose windows are decoded at once."""

Best = dict[str, tuple[str, float]]
"""Text and score of the best span of each question."""


def decode(workload: Workload, repeats: int) -> list[Row]:
    """Logits that have sharp peaks, as a trained model's do, and random ones."""
    passages = _some_passages(workload.passages)
    collator, window, settings = workload.featurise(passages), workload.config.window, EvalConfig()
    examples = rows_of(passages)
    features = evaluation_features(examples, workload.tokenizer, window.max_length, window.stride)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rows = []
    for name, logits in _logits(collator).items():
        usual: Answers = {}
        ours: Best = {}
        ways = {
            "standard": partial(_time_standard, examples, features, logits, settings, usual),
            "ours": partial(_time_ours, collator, logits, settings, ours),
        }
        timings = interleave(f"decode {name}", ways, repeats)
        _check_scores(usual, ours)
        rows.append(
            Row(
                case=f"decode {name}",
                standard=f"{settings.n_best} x {settings.n_best} loop",
                ours="exact n-best",
                unit="windows",
                standard_timings=timings["standard"],
                ours_timings=timings["ours"],
                goal=10.0,
                details={"num_examples": len(ours)},
            )
        )
    torch.set_num_threads(threads)
    return rows


def _some_passages(passages: list[Passage]) -> list[Passage]:
    """Passages drawn at random, until they have enough questions."""
    drawn = [passages[number] for number in np.random.default_rng(0).permutation(len(passages)).tolist()]
    before = accumulate((len(passage.questions) for passage in drawn), initial=0)
    return [passage for passage, questions in zip(drawn, before, strict=False) if questions < _MAX_QUESTIONS]


def _logits(collator: Collator) -> dict[str, Float32s]:
    """Start and end logits of every window, [2, num_windows, max_length], by how they look."""
    windows = collator.windows
    rng = np.random.default_rng(0)
    random = rng.normal(size=(2, len(windows), collator.max_length)).astype(np.float32)
    trained = 1.5 * random - 6
    every = np.arange(len(windows))
    for side, label in enumerate((windows.start_position, windows.end_position)):
        trained[side, every, label] += 12
        # A few other tokens look likely too.
        for rise in (3, 5, 8):
            trained[side, every, rng.integers(0, windows.length)] += np.float32(rise)
    return {"trained": trained, "random": random}


def _time_standard(
    examples: Dataset, features: Dataset, logits: Float32s, settings: EvalConfig, found: Answers
) -> Timing:
    begin = time.perf_counter()
    start, end = logits
    found.update(postprocess(examples, features, start, end, settings.n_best, settings.max_answer_length))
    return Timing(len(features), time.perf_counter() - begin)


def _time_ours(collator: Collator, logits: Float32s, settings: EvalConfig, found: Best) -> Timing:
    """As the evaluator does it, but for the model: batch by batch, then all windows together."""
    windows = collator.windows
    groups = collator.groups(np.arange(len(windows)), _MAX_TOKENS)
    batches = [(items, collator(items), _batch_logits(collator, logits, items)) for items in groups]
    begin = time.perf_counter()
    decoder = Decoder(
        windows, n_best=settings.n_best, max_answer_length=settings.max_answer_length, named=collator.corpus.record
    )
    for items, batch, given in batches:
        decoder.add(items, given, batch)
    spans = find_spans(collator.corpus, *decoder.join(), no_answer=False)
    scores = np.append(spans.candidates.score, -np.float32(np.inf))[spans.best_rows].tolist()
    found.update(zip(collator.corpus.ids(), zip(spans.best_texts, scores, strict=True), strict=True))
    return Timing(len(windows), time.perf_counter() - begin)


def _batch_logits(collator: Collator, logits: Float32s, items: Int64s) -> Logits:
    """What a model gives for a batch: logits to its padded length, -inf at padding."""
    length = collator.windows.length[items]
    width = padded_length(int(length.max()), collator.pad_to_multiple_of, collator.max_length)
    inside = np.arange(width) < length[:, None]
    return Logits(*(torch.from_numpy(np.where(inside, side[items, :width], -np.inf)) for side in logits))


def _check_scores(usual: Answers, ours: Best) -> None:
    """The same questions, and for each a best span that is at least as good as that of the usual search."""
    if usual.keys() != ours.keys():
        raise AssertionError("decode: the ways did not answer the same questions")
    for key, spans in usual.items():
        text, score = ours[key]
        if text and spans and score < spans[0]["score"]:
            raise AssertionError(f"decode: the usual search finds a better span than ours for {key}")

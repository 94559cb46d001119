import json
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from device_waits import waits
from small_runs import changed, cpu_accelerator, made_passages, make_collator, tiny_config

from qa_ray.answers import inference
from qa_ray.config.fine_tuning import EvalConfig
from qa_ray.config.policies import Language
from qa_ray.errors import DataError, ModelError
from qa_ray.model import token_limit
from qa_ray.model.loading import load_model, load_tokenizer
from qa_ray.scores.metrics import exact_match, f1
from qa_ray.scores.results import assemble
from qa_ray.training import evaluator as evaluation
from qa_ray.training.evaluator import Evaluator

# Right-padded; left-padded with the context first and CLS last; left-padded with BOS; without any special token.
FAMILIES = ["bert", "xlnet", "llama", "gpt2"]
MAX_ANSWER_LENGTH = 6
N_BEST = 5


def config_of(folder, passages):
    """Windows that hold the longest question and 14 tokens of context, 8 of which they share."""
    settings = {"n_best": N_BEST, "max_answer_length": MAX_ANSWER_LENGTH, "max_tokens_per_device": 400}
    config = tiny_config(folder, evaluate=settings)
    collator = make_collator(changed(config, window={"max_length": 512}), passages)
    length = int(collator.corpus.question_lengths.max()) + collator.template.num_special + 14
    return changed(config, window={"max_length": length, "stride": 8})


def decisive_model(config):
    """A random model whose scores are far apart."""
    model = load_model(config.model)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.startswith("qa_outputs"):
                weight.mul_(100)
    return model.eval()


def plain_windows(tokenizer, question, context, config, context_first):
    """Windows as transformers cuts them: ids, types, and each token's characters, None where it is not context."""
    encoding = tokenizer(
        *((context, question) if context_first else (question, context)),
        truncation="only_first" if context_first else "only_second",
        max_length=config.window.max_length,
        stride=config.window.stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    mine = 0 if context_first else 1
    for window in range(len(encoding["input_ids"])):
        owners = encoding.sequence_ids(window)
        offsets = encoding["offset_mapping"][window]
        inputs = {
            name: torch.tensor([encoding[name][window]]) for name in tokenizer.model_input_names if name in encoding
        }
        yield inputs, [offset if owner == mine else None for offset, owner in zip(offsets, owners, strict=True)]


def plain_answers(model, tokenizer, question, context, config, context_first):
    """Every legal span of every window by brute force: {characters: (score, start, end)}, and the null score."""
    spans, null = {}, np.inf
    for inputs, characters in plain_windows(tokenizer, question, context, config, context_first):
        with torch.no_grad():
            outputs = model(**inputs)
        start, end = outputs.start_logits[0].tolist(), outputs.end_logits[0].tolist()
        cls = -1 if context_first else 0
        null = min(null, start[cls] + end[cls])
        for first in range(len(characters)):
            for last in range(first, min(first + MAX_ANSWER_LENGTH, len(characters))):
                if characters[first] is not None and characters[last] is not None:
                    key = (characters[first][0], characters[last][1])
                    found = (start[first] + end[last], start[first], end[last])
                    spans[key] = max(spans.get(key, found), found)
    return spans, null


@pytest.fixture(scope="module", params=FAMILIES)
def evaluated(request, saved):
    """A model's evaluation on questions of several windows, with unanswerable ones, and what brute force gives."""
    passages = made_passages(6, unanswerable=2, num_words=(12, 40))
    config = config_of(saved(request.param), passages)
    collator, model, tokenizer = make_collator(config, passages), decisive_model(config), load_tokenizer(config.model)
    assert np.bincount(collator.windows.question).max() > 2
    result = Evaluator(collator, config.evaluate, no_answer=True)(model, cpu_accelerator())
    expected = {}
    for passage in passages:
        [question] = passage.questions
        context_first = request.param == "xlnet"
        arguments = (model, tokenizer, question.text, passage.context, config, context_first)
        expected[question.id] = (passage, *plain_answers(*arguments))
    return result, expected, collator, config, model


def close(value):
    return pytest.approx(value, rel=1e-3, abs=1e-3)


def test_n_best_are_the_best_legal_spans_of_all_windows(evaluated):
    result, expected, *_ = evaluated
    for key, (passage, spans, null) in expected.items():
        ranked = sorted(spans.items(), key=lambda item: -item[1][0])[:N_BEST]
        found = [span for span in result.n_best[key] if span.text]
        assert len(found) == N_BEST
        for span, ((begin, end), (score, start_logit, end_logit)) in zip(found, ranked, strict=True):
            assert span.start_logit + span.end_logit == close(score)
            assert (span.start_logit, span.end_logit) == (close(start_logit), close(end_logit))
            assert span.text == passage.context[begin:end].strip()
        [nothing] = [span for span in result.n_best[key] if not span.text]
        assert nothing.start_logit + nothing.end_logit == close(null)


def test_null_odds_are_null_score_minus_best_score(evaluated):
    result, expected, *_ = evaluated
    for key, (_, spans, null) in expected.items():
        assert result.null_odds[key] == close(null - max(score for score, *_ in spans.values()))


def test_probabilities_are_a_softmax_over_the_n_best_and_no_answer(evaluated):
    result, *_ = evaluated
    for candidates in result.n_best.values():
        scores = np.array([span.start_logit + span.end_logit for span in candidates])
        weights = np.exp(scores - scores.max())
        assert [span.probability for span in candidates] == pytest.approx((weights / weights.sum()).tolist(), abs=1e-5)
        assert sum(span.probability for span in candidates) == pytest.approx(1, abs=1e-5)
        assert all(better.probability >= worse.probability for better, worse in pairwise(candidates))


def plain_scores(answers, expected):
    """Exact match and F1 in percent."""
    scores = []
    for key, (passage, *_) in expected.items():
        references = [answer.text for answer in passage.questions[0].answers] or [""]
        scores.append((exact_match(answers[key], references), f1(answers[key], references)))
    return 100 * np.mean(scores, axis=0)


def test_predictions_are_the_best_texts_up_to_the_threshold(evaluated):
    result, expected, *_ = evaluated
    for key, (passage, spans, _) in expected.items():
        ranked = sorted(spans.items(), key=lambda item: -item[1][0])
        best = next(passage.context[slice(*place)] for place, _ in ranked if passage.context[slice(*place)].strip())
        silent = result.null_odds[key] > result.metrics["threshold"]
        assert result.predictions[key] == ("" if silent else best)


def test_metrics_are_those_of_the_predictions_at_the_best_threshold(evaluated):
    result, expected, *_ = evaluated
    exact, overlap = plain_scores(result.predictions, expected)
    assert (result.metrics["exact_match"], result.metrics["f1"]) == (pytest.approx(exact), pytest.approx(overlap))
    assert result.metrics["total"] == len(expected)
    best = {key: next(span.text for span in spans if span.text) for key, spans in result.n_best.items()}
    scores = sorted(result.null_odds.values())
    for threshold in [scores[0] - 1, *scores]:
        answers = {key: "" if result.null_odds[key] > threshold else text for key, text in best.items()}
        assert plain_scores(answers, expected)[1] <= result.metrics["f1"] + 1e-6


def test_loss_is_the_mean_over_the_windows(evaluated):
    result, _, collator, _, model = evaluated
    losses = []
    for window in range(len(collator.windows)):
        batch = collator(np.array([window]))
        with torch.no_grad():
            outputs = model(**batch.inputs)
        kept = batch.inputs["attention_mask"][0].bool()
        pairs = ((outputs.start_logits, batch.start_positions), (outputs.end_logits, batch.end_positions))
        losses.append(np.mean([(torch.logsumexp(s[0][kept], 0) - s[0][place]).item() for s, place in pairs]))
    assert result.metrics["loss"] == pytest.approx(np.mean(losses), rel=1e-4)


def test_without_no_answer_every_question_gets_its_best_text_and_the_answered_ones_are_scored(evaluated):
    _, expected, collator, config, model = evaluated
    result = Evaluator(collator, config.evaluate, no_answer=False)(model, cpu_accelerator())
    assert set(result.metrics) == {"exact_match", "f1", "total", "loss"}
    answered = {key: value for key, value in expected.items() if value[0].questions[0].answers}
    assert result.metrics["total"] == len(answered) == len(expected) - 2
    exact, overlap = plain_scores(result.predictions, answered)
    assert (result.metrics["exact_match"], result.metrics["f1"]) == (pytest.approx(exact), pytest.approx(overlap))
    assert result.predictions.keys() == expected.keys()
    assert all(result.predictions.values())
    for key, candidates in result.n_best.items():
        assert all(span.text for span in candidates)
        assert candidates[0].text == result.predictions[key]
        assert sum(span.probability for span in candidates) == pytest.approx(1, abs=1e-5)


def test_what_is_decoded_can_be_scored_elsewhere(evaluated, monkeypatch):
    result, _, collator, config, model = evaluated
    monkeypatch.delattr(evaluation, "assemble")
    found = Evaluator(collator, config.evaluate).decode(model, cpu_accelerator())
    scored = assemble(collator.corpus, found.candidates, found.null, found.loss, no_answer=True)
    assert scored.metrics == result.metrics
    assert scored.predictions == result.predictions
    assert scored.n_best == result.n_best


def test_files_have_the_layout_of_the_official_scripts(evaluated, tmp_path):
    result, expected, *_ = evaluated
    result.save(tmp_path / "evaluation")
    read = {file.name: json.loads(file.read_text("utf-8")) for file in tmp_path.glob("evaluation/*.json")}
    assert read.keys() == {"predictions.json", "nbest_predictions.json", "null_odds.json", "metrics.json"}
    assert read["predictions.json"] == result.predictions
    assert read["predictions.json"].keys() == expected.keys()
    assert all(isinstance(text, str) for text in read["predictions.json"].values())
    for key, candidates in read["nbest_predictions.json"].items():
        assert [candidate["text"] for candidate in candidates] == [span.text for span in result.n_best[key]]
        for candidate in candidates:
            assert list(candidate) == ["text", "probability", "start_logit", "end_logit"]
        assert sum(candidate["probability"] for candidate in candidates) == pytest.approx(1, abs=1e-5)
    assert read["null_odds.json"] == result.null_odds
    assert read["metrics.json"] == {**result.metrics, "language": "squad"}


@pytest.mark.parametrize("training", [True, False])
def test_model_is_left_in_the_mode_it_came_in(bert, training):
    config = tiny_config(bert, model={"dropout": 0.5})
    model = load_model(config.model).train(training)
    evaluator = Evaluator(make_collator(config, made_passages(3)), config.evaluate, no_answer=False)
    losses = [evaluator(model, cpu_accelerator()).metrics["loss"] for _ in range(2)]
    assert losses[0] == losses[1], "dropout must be off"
    assert model.training is training
    assert all(module.training is training for module in model.modules())
    assert all(weight.grad is None for weight in model.parameters())


def test_progress_counts_up_to_all_windows(bert):
    config = tiny_config(bert, evaluate={"max_tokens_per_device": 64})
    collator, records = make_collator(config, made_passages(5)), []
    evaluator = Evaluator(collator, config.evaluate, no_answer=False)
    evaluator(load_model(config.model), cpu_accelerator(), step=7, record=records.append)
    done = [record.done for record in records]
    assert len(done) > 2
    assert done == sorted(done)
    assert done[-1] == records[-1].total == len(collator.windows)
    assert {(record.phase, record.step) for record in records} == {("evaluate", 7)}


def test_forward_passes_suit_the_device_without_a_number(bert, monkeypatch):
    monkeypatch.setattr(token_limit, "cache_bytes", lambda: 0)  # the least that a CPU takes: 1,024 tokens
    config, records = tiny_config(bert), []
    collator = make_collator(config, made_passages(60))
    evaluator = Evaluator(collator, EvalConfig(), no_answer=False)
    evaluator(load_model(config.model), cpu_accelerator(), record=records.append)
    groups = np.diff([0, *(record.done for record in records)]).tolist()
    assert groups == [len(group) for group in collator.groups(np.arange(len(collator.windows)), 1024)]
    assert len(groups) > 1


def test_batch_size_does_not_change_the_answers(bert):
    config = tiny_config(bert)
    collator, model = (
        make_collator(config, made_passages(5, unanswerable=1, num_words=(30, 60))),
        decisive_model(config),
    )
    few, many = (
        Evaluator(collator, EvalConfig(max_tokens_per_device=limit), no_answer=True)(model, cpu_accelerator())
        for limit in (1, 100_000)
    )
    assert few.predictions == many.predictions
    assert few.metrics == pytest.approx(many.metrics, rel=1e-4)


@pytest.mark.parametrize(("at_once", "waits_of"), [(1, lambda passes: passes), (2**30, lambda passes: 1)])
def test_device_is_waited_for_once_a_batch_at_most_and_once_for_the_loss(bert, monkeypatch, at_once, waits_of):
    monkeypatch.setattr(inference, "_SPANS_AT_ONCE", at_once)
    config = tiny_config(bert, evaluate={"max_tokens_per_device": 64})
    collator, shapes = make_collator(config, made_passages(5)), []
    model = load_model(config.model)

    # Transformers' own code looks at the mask.
    def without_a_wait(input_ids, **inputs):
        shapes.append(input_ids.shape)
        return SimpleNamespace(start_logits=input_ids + 0.5, end_logits=input_ids + 0.25)

    model.forward = without_a_wait
    with waits() as found:
        Evaluator(collator, config.evaluate, no_answer=True)(model, cpu_accelerator())
    assert len(shapes) > 2
    assert [wait.split()[0] for wait in found] == ["cpu"] * waits_of(len(shapes)) + ["tolist"]


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("place", ["context", "cls"])
@pytest.mark.parametrize("no_answer", [True, False])
def test_one_logit_that_is_no_number_in_one_window_of_several_is_refused(bert, value, place, no_answer):
    config = tiny_config(bert)
    collator, model = make_collator(config, made_passages(6, num_words=(30, 60))), decisive_model(config)
    windows = collator.windows
    middle = int(np.flatnonzero((np.bincount(windows.question) >= 3)[windows.question])[1])
    evaluator = Evaluator(collator, config.evaluate, no_answer=no_answer)
    assert evaluator(model, cpu_accelerator()) is not None
    batch = collator(np.array([middle]))
    broken = batch.inputs["input_ids"][0, : int(windows.length[middle])]
    column = int(batch.context_begin[0]) + 2 if place == "context" else 0
    forward = model.forward

    def spoilt(input_ids, **inputs):
        outputs = forward(input_ids=input_ids, **inputs)
        row = (input_ids[:, : len(broken)] == broken).all(1)
        outputs.end_logits[row, column] = value
        return outputs

    model.forward = spoilt
    question = windows.question[middle]
    with pytest.raises(
        ModelError, match=rf"made\[{question}\], id q{question}: the model's scores are not finite numbers"
    ):
        evaluator(model, cpu_accelerator())


@pytest.mark.parametrize("no_answer", [True, False])
def test_split_without_any_answer_is_refused(bert, no_answer):
    config = tiny_config(bert)
    collator = make_collator(config, made_passages(2, unanswerable=2))
    with pytest.raises(DataError, match=r"data\.validation has no question with an answer"):
        Evaluator(collator, config.evaluate, no_answer=no_answer)


def test_texts_are_compared_by_the_rule_of_the_configuration(bert):
    passages = made_passages(3)
    config = changed(tiny_config(bert), evaluate={"language": Language.GERMAN})
    evaluate = Evaluator(make_collator(config, passages), config.evaluate, no_answer=False)
    result = evaluate(load_model(config.model), cpu_accelerator())
    assert result.language is Language.GERMAN
    references = [[answer.text for answer in passage.questions[0].answers] for passage in passages]
    scores = [
        f1(text, gold, Language.GERMAN) for text, gold in zip(result.predictions.values(), references, strict=True)
    ]
    assert result.metrics["f1"] == pytest.approx(100 * np.mean(scores))

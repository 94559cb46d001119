"""The calls that the former question-answering pipeline's own tests made, and one question to several contexts."""

import re
import warnings
from itertools import permutations

import numpy as np
import pytest
from answerers import ALL, CONTEXTS, QUESTIONS, assert_close, open_cpu, save_decisive, shapes

from qa_ray.errors import ConfigError, DataError

Q, C = "Where was the bridge built?", "Charles built the bridge in Prague."
LONG = f"{C} " * 20
KEYS = {"score", "start", "end", "answer"}


@pytest.fixture(scope="module")
def answerer(bert, tmp_path_factory):
    """A BERT that may say that there is no answer."""
    folder = tmp_path_factory.mktemp("bert")
    save_decisive("bert", bert, folder, threshold=1.5)
    return open_cpu(folder)


def test_all_forms_of_one_input_give_one_result(answerer):
    expected = answerer(Q, C)
    assert expected.keys() == KEYS
    sample = {"question": Q, "context": C}
    assert (
        answerer(question=Q, context=C) == answerer(sample) == answerer(data=sample) == answerer(X=sample) == expected
    )
    assert answerer(answerer.create_sample(question=Q, context=C)) == expected
    assert answerer(Q, context=C) == expected


def test_all_forms_of_two_inputs_give_two_results(answerer):
    one, two = {"question": Q, "context": C}, {"question": "Who built it?", "context": LONG}
    expected = answerer([one, two])
    assert len(expected) == 2
    assert answerer(one, two) == answerer(data=[one, two]) == answerer(X=(one, two)) == expected
    assert answerer(answerer.create_sample(question=[Q, "Who built it?"], context=[C, LONG])) == expected
    assert answerer(*(answerer.create_sample(**sample) for sample in (one, two))) == expected


def test_topk_is_top_k(answerer):
    answers = answerer(question=Q, context=C, topk=20)
    assert answers == answerer(question=Q, context=C, top_k=20)
    assert len(answers) == 20
    assert answerer(Q, C, topk=2, top_k=2) == answers[:2]
    with pytest.raises(ConfigError, match="top_k=3 and topk=2 contradict"):
        answerer(Q, C, topk=2, top_k=3)
    with pytest.raises(ValueError, match="topk=0 must be a whole number of at least 1"):
        answerer(Q, C, topk=0)


def test_batch_size_bounds_a_forward_pass_and_changes_no_answer(answerer):
    length = answerer.settings.max_length
    for batch_size in (1, 3):
        seen = shapes(answerer, QUESTIONS, [LONG] * len(QUESTIONS), batch_size=batch_size)
        assert max(rows * width for rows, width in seen) <= batch_size * length
        assert max(rows for rows, _ in seen) >= batch_size
    answers = answerer(QUESTIONS, CONTEXTS, top_k=5)
    assert_close(answerer(QUESTIONS, CONTEXTS, top_k=5, batch_size=1), answers)
    with pytest.raises(ValueError, match="batch_size=0 must be"):
        answerer(Q, C, batch_size=0)


def test_padding_is_accepted_and_said_to_have_no_effect(answerer):
    expected = answerer(Q, C)
    with pytest.warns(UserWarning, match="padding='longest' has no effect") as told:
        assert answerer(question=Q, context=C, padding="longest") == expected
    assert told[0].filename == __file__
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("default")
        for _ in range(3):
            answerer(question=Q, context=C, padding=True)
    assert len(told) == 1


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (("", C), {}),
        ((None, C), {}),
        ((Q, ""), {}),
        ((Q, None), {}),
        ((), {"question": "", "context": C}),
        ((), {"question": None, "context": C}),
        ((), {"question": Q, "context": ""}),
        ((), {"question": Q, "context": None}),
        ((), {}),
        ((None,), {}),
        ((1,), {}),
        ((), {"Y": None}),
        (({"question": Q},), {}),
        (({"context": C},), {}),
        (({"question": Q, "context": ""},), {}),
        (([{"context": C}],), {}),
        (([{"question": Q, "context": C}, {"question": None, "context": C}],), {}),
        ((), {"question": {"This": "is odd"}, "context": C}),
        ((), {"question": [Q, Q], "context": [C, C, C]}),
        ((Q, C, C), {}),
    ],
    ids=str,
)
def test_wrong_input_raises_a_value_error(answerer, given, named):
    with pytest.raises(ValueError, match=r"input|question|context"):
        answerer(*given, **named)


def test_unknown_setting_is_named_beside_those_that_there_are(answerer):
    with pytest.raises(ConfigError, match="has no argument max_length: the settings of a call are top_k, doc_stride"):
        answerer(Q, C, max_length=3)


@pytest.mark.parametrize("allowed", [False, True])
def test_one_context_in_a_list_is_answered_as_it_is_alone(answerer, allowed):
    alone = answerer(Q, LONG, top_k=9, handle_impossible_answer=allowed)
    listed = answerer(Q, contexts=[LONG], top_k=9, handle_impossible_answer=allowed)
    assert [answer.pop("context") for answer in listed] == [0 if answer["answer"] else None for answer in alone]
    assert listed == alone


def test_answers_in_several_contexts_are_ranked_together_with_one_no_answer(answerer):
    """Probabilities of a context alone say what each span weighs against the others and "no answer" there."""
    answerer_settings = {"top_k": ALL, "handle_impossible_answer": True}
    question, contexts = QUESTIONS[1], CONTEXTS[:3]
    together = answerer(question, contexts=contexts, **answerer_settings)
    empty = [answer for answer in together if not answer["answer"]]
    assert len(empty) == 1
    assert (empty[0]["start"], empty[0]["end"], empty[0]["context"]) == (0, 0, None)
    assert [a["score"] for a in together] == sorted((a["score"] for a in together), reverse=True)

    # Scores are known up to each context's own sum; relative to its "no answer" they are logits.
    nulls, spans = [], {}
    for place, context in enumerate(contexts):
        answers = answerer(question, context, **answerer_settings)
        null = next(answer["score"] for answer in answers if not answer["answer"])
        nulls.append(null_logit(answerer, question, context))
        for answer in answers:
            if answer["answer"]:
                logit = np.log(answer["score"]) - np.log(null) + nulls[-1]
                spans[place, answer["start"], answer["end"]] = logit
    total = np.logaddexp.reduce([*spans.values(), min(nulls)])
    assert empty[0]["score"] == pytest.approx(np.exp(min(nulls) - total), rel=1e-3)
    found = {(a["context"], a["start"], a["end"]): a["score"] for a in together if a["answer"]}
    assert found == pytest.approx({place: np.exp(logit - total) for place, logit in spans.items()}, rel=1e-3, abs=1e-9)
    assert {place for place, *_ in found} == {0, 1, 2}
    for answer in together:
        if answer["answer"]:
            assert answer["answer"] == contexts[answer["context"]][answer["start"] : answer["end"]]


def null_logit(answerer, question, context):
    """The lowest CLS score of a context's windows less the threshold, from the model's own outputs."""
    lowest = []
    hook = answerer.model.register_forward_hook(
        lambda module, args, outputs: lowest.append(
            float((outputs.start_logits[:, 0] + outputs.end_logits[:, 0]).min())
        )
    )
    answerer(question, context)
    hook.remove()
    return min(lowest) - answerer.settings.no_answer_threshold


def test_order_of_the_contexts_and_other_questions_change_nothing(answerer):
    expected = answerer(QUESTIONS[0], contexts=CONTEXTS[:3], top_k=6)
    for order in permutations(range(3)):
        answers = answerer(QUESTIONS[0], contexts=[CONTEXTS[place] for place in order], top_k=6)
        for answer, other in zip(answers, expected, strict=True):
            place = answer["context"]
            assert (None if place is None else order[place]) == other["context"]
            assert (answer["start"], answer["end"], answer["answer"]) == (other["start"], other["end"], other["answer"])
            assert answer["score"] == pytest.approx(other["score"], abs=1e-5)
    several = answerer(QUESTIONS[:2], contexts=[CONTEXTS[:3], CONTEXTS[3:]], top_k=6)
    assert len(several) == 2
    assert_close([[a for a in several[0] if a["context"] == n] for n in range(3)],
                 [[a for a in expected if a["context"] == n] for n in range(3)])  # fmt: skip
    mixed = answerer([{"question": QUESTIONS[0], "contexts": CONTEXTS[:3]}, {"question": Q, "context": C}])
    assert mixed[0]["context"] == expected[0]["context"]
    assert mixed[1].keys() == KEYS


def test_context_that_makes_no_token_is_named_among_the_others(answerer):
    with pytest.raises(DataError, match=re.escape(r"inputs[0] contexts[1]: context='\x07': the tokenizer makes no")):
        answerer([Q], contexts=[[C, "\x07"]])

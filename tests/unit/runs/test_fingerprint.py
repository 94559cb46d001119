"""A run goes on only with the data and the tokenizer that it was begun with, and says which of them has changed."""

import dataclasses
import logging

import numpy as np
import pytest
from families import FAMILIES

from qa_ray.config.data import DataConfig
from qa_ray.config.fine_tuning import Config, ModelConfig
from qa_ray.data.pipeline import Split
from qa_ray.errors import DataError
from qa_ray.model.loading import learn_template
from qa_ray.runs.fingerprint import Fingerprint, hold_to
from qa_ray.storage.run_folder import FINGERPRINT, RunFolder

CONFIG = Config(
    model=ModelConfig(name="tiny"),
    data=DataConfig(train="train.json", validation="dev.json"),
)
TRAIN = "data.train=train.json holds other questions, contexts or answers"
VALIDATION = "data.validation=dev.json holds other questions, contexts or answers"
TOKENIZER = "the tokenizer of model.name=tiny makes other tokens of the same texts"


def split(texts, tokens):
    return Split(
        texts,
        (),
        np.arange(1),
        (),
        has_unanswerable=False,
        digest=texts,
        token_digest=tokens,
        context_keys=np.zeros(1, np.uint64),
    )


def fingerprint(family="bert"):
    template = learn_template(FAMILIES[family].tokenizer())
    return Fingerprint.of(split("questions", "ids"), split("others", "other ids"), template)


BEFORE = fingerprint()


@pytest.fixture
def folder(tmp_path):
    """That of a run that was begun."""
    folder = RunFolder(str(tmp_path), "mine")
    hold_to(folder, [(CONFIG, BEFORE)], begun=False)
    return folder


def test_same_data_and_tokenizer_go_on_and_nothing_is_written(folder, tmp_path, caplog):
    written = (tmp_path / "mine" / FINGERPRINT).stat().st_mtime_ns
    hold_to(folder, [(CONFIG, fingerprint())], begun=True)
    assert (tmp_path / "mine" / FINGERPRINT).stat().st_mtime_ns == written
    assert not caplog.records


@pytest.mark.parametrize(
    ("now", "told"),
    [
        (dataclasses.replace(BEFORE, train="x", train_tokens="x"), [TRAIN]),
        (dataclasses.replace(BEFORE, validation="x", validation_tokens="x"), [VALIDATION]),
        (dataclasses.replace(BEFORE, validation="x"), [VALIDATION]),
        (dataclasses.replace(BEFORE, train_tokens="x"), [TOKENIZER]),
        (dataclasses.replace(BEFORE, validation_tokens="x"), [TOKENIZER]),
        (fingerprint("roberta"), [TOKENIZER]),
        (dataclasses.replace(BEFORE, train="x", train_tokens="x", validation_tokens="x"), [TRAIN, TOKENIZER]),
        (dataclasses.replace(BEFORE, train="x", validation="x"), [TRAIN, VALIDATION]),
    ],
    ids=[
        "training", "validation", "an answer's start", "tokens of training", "tokens of validation", "template",
        "training and tokenizer", "both splits",
    ],
)  # fmt: skip
def test_whatever_has_changed_is_told_with_its_option_and_what_to_do(folder, now, told):
    with pytest.raises(DataError) as raised:
        hold_to(folder, [(CONFIG, now)], begun=True)
    assert str(raised.value) == (
        f"what run.name=mine was begun with has changed: {'; '.join(told)}. Bring back what was there to go on, or "
        "choose another run.name to begin anew"
    )
    hold_to(folder, [(CONFIG, BEFORE)], begun=True)


def test_hub_and_own_tokenizer_are_named_by_their_options(folder):
    config = Config(model=ModelConfig(tokenizer="own"), data=DataConfig(hub="user/set"))
    now = dataclasses.replace(BEFORE, train="x", validation_tokens="x")
    with pytest.raises(DataError, match=r"data\.train=train of data\.hub=user/set holds .*of model\.tokenizer=own mak"):
        hold_to(folder, [(config, now)], begun=True)


def test_run_that_has_computed_nothing_takes_what_is_there_now(folder):
    now = dataclasses.replace(BEFORE, train="x")
    hold_to(folder, [(CONFIG, now)], begun=False)
    hold_to(folder, [(CONFIG, now)], begun=True)


def test_run_without_a_fingerprint_goes_on_with_a_warning_and_has_one_then(folder, tmp_path, caplog):
    (tmp_path / "mine" / FINGERPRINT).unlink()
    with caplog.at_level(logging.WARNING, "qa_ray"):
        hold_to(folder, [(CONFIG, BEFORE)], begun=True)
    assert caplog.messages == [
        "mine was begun before data had fingerprints: whether they have changed is not known"
    ]  # fmt: skip
    with pytest.raises(DataError, match="has changed"):
        hold_to(folder, [(CONFIG, dataclasses.replace(BEFORE, train="x"))], begun=True)


def test_each_data_set_of_a_sweep_is_held_to_its_own(tmp_path):
    folder = RunFolder(str(tmp_path), "night")
    configs = [CONFIG, dataclasses.replace(CONFIG, data=DataConfig(train="more.json", validation="dev.json"))]
    more = dataclasses.replace(BEFORE, train="more", train_tokens="more ids")
    hold_to(folder, list(zip(configs, [BEFORE, more], strict=True)), begun=False)
    hold_to(folder, list(zip(configs, [BEFORE, more], strict=True)), begun=True)
    changed = [dataclasses.replace(one, validation="x") for one in (BEFORE, dataclasses.replace(more, train="y"))]
    with pytest.raises(DataError) as raised:
        hold_to(folder, list(zip(configs, changed, strict=True)), begun=True)
    assert str(raised.value).startswith(
        f"what run.name=night was begun with has changed: {VALIDATION}; {TRAIN.replace('train.json', 'more.json')}. "
    )


def test_share_of_the_training_questions_is_named_by_where_they_are_read():
    config = dataclasses.replace(CONFIG, data=dataclasses.replace(CONFIG.data, validation_share=0.1))
    now = dataclasses.replace(BEFORE, train="x", validation="y")
    assert set(now.changes(BEFORE, config)) == {TRAIN}

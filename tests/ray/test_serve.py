"""The service on Ray Serve, started as a user starts it: it answers, tells what is wrong, and loses nothing."""

import re
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from answerers import save_decisive
from direct_service import ASK, CONTEXT, QUESTION
from families import FAMILIES
from huggingface_hub import InferenceClient
from ray import cloudpickle
from ray import serve as ray_serve
from ray.serve.config import HTTPOptions
from ray.serve.schema import ServeDeploySchema
from served import ServiceProcess, fetch

from qa_ray.answers import QuestionAnswerer
from qa_ray.config.policies import AnswerPrecision
from qa_ray.errors import ClusterError, ConfigError, ModelError, UserError
from qa_ray.serving.application import from_config
from qa_ray.serving.job import serve
from qa_ray.serving.options import TOKEN, ServeOptions

JOBS = Path(__file__).parents[2] / "jobs"
LONG = {"question": QUESTION, "context": "Charles built the bridge in the town of Prague. " * 400}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("served")
    FAMILIES["bert"].save(place / "tiny")
    save_decisive("bert", place / "tiny", place / "model", threshold=1.5)
    return place / "model"


def test_a_service_answers_and_loses_nothing_at_its_end(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    answerer = QuestionAnswerer.from_pretrained(str(folder), device="cpu")
    with ServiceProcess(str(folder), tmp_path, "--local-cpus", "1", "--cpus-per-replica", "1") as service:
        status, found = service.post("/answer", {**ASK, "top_k": 3})
        expected = answerer(QUESTION, CONTEXT, top_k=3)
        assert status == 200
        assert [one["answer"] for one in found["answers"]] == [one["answer"] for one in expected]
        theirs = InferenceClient(model=service.url).question_answering(question=QUESTION, context=CONTEXT, top_k=3)
        assert [(one.answer, one.start, one.end) for one in theirs] == [
            (one["answer"], one["start"], one["end"]) for one in expected
        ]
        assert service.get("/model")["name"] == str(folder)
        assert fetch(f"{service.url}/")[1].startswith(b"<!DOCTYPE html>")
        assert b'qa_ray_requests_total{path="/answer",status="200"} 1.0' in fetch(f"{service.url}/metrics")[1]
        assert service.post("/answer", {"question": ""})[0] == 422
        found_late: list[int] = []
        threads = [
            threading.Thread(target=lambda: found_late.append(service.post("/answer", LONG)[0])) for _ in range(12)
        ]
        for thread in threads:
            thread.start()
        while b"qa_ray_waiting 12.0" not in fetch(f"{service.url}/metrics")[1] and not found_late:
            time.sleep(0.01)
        assert service.stop() == 0
        for thread in threads:
            thread.join()
        assert found_late == [200] * 12
    assert "Traceback" not in service.log.read_text()


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": "no/such/model"}, "no/such/model"),
        ({"host": "0.0.0.0"}, f"--host=0.0.0.0 lets other machines in: set {TOKEN}"),
        ({"port": -1}, "Address already in use; name another --port"),
        ({"precision": AnswerPrecision.FP16}, "precision=fp16 needs a GPU"),
    ],
    ids=["no model", "open without a token", "port in use", "precision"],
)
def test_what_cannot_be_is_told_in_words(given: dict[str, Any], message: str, folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        if "port" in given:
            given = {"port": taken.getsockname()[1]}
        with pytest.raises(UserError, match=re.escape(message)):
            serve(ServeOptions(**{"model": str(folder), "use_gpu": False, **given}))


@ray_serve.deployment(ray_actor_options={"num_cpus": 0})
class Other:
    """Somebody else's application."""


@pytest.mark.usefixtures("ray_cluster")
def test_a_cluster_keeps_what_it_serves_already_and_not_what_an_ended_service_left() -> None:
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    ray_serve.start(http_options=HTTPOptions(port=0))
    ray_serve.run(Other.bind(), name="other")
    try:
        with pytest.raises(ClusterError, match=r"already \(with other\).*serve shutdown"):
            serve(ServeOptions(model="no/such/model", use_gpu=False))
        assert set(ray_serve.status().applications) == {"other"}
        ray_serve.delete("other")
        with pytest.raises(ModelError, match="no/such/model"):
            serve(ServeOptions(model="no/such/model", use_gpu=False))
        assert not ray_serve.status().proxies
    finally:
        ray_serve.shutdown()


@pytest.mark.usefixtures("ray_cluster")
def test_a_service_that_is_ended_while_it_starts_is_withdrawn(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[str] = []

    def end(*_: object) -> None:
        served.extend(ray_serve.status().applications)
        raise KeyboardInterrupt

    # Asked for once the application runs.
    monkeypatch.setattr(ray_serve, "get_deployment_handle", end)
    try:
        with pytest.raises(KeyboardInterrupt):
            serve(ServeOptions(model=str(folder), port=0, use_gpu=False, cpus_per_replica=1))
        assert served == ["qa_ray"]
        assert not ray_serve.status().applications
    finally:
        ray_serve.shutdown()


@pytest.mark.usefixtures("ray_cluster")
def test_a_config_file_describes_the_same_application() -> None:
    config = ServeDeploySchema.model_validate(yaml.safe_load((JOBS / "serve.yaml").read_text()))
    (described,) = config.applications
    assert described.import_path == f"{from_config.__module__}:{from_config.__name__}"
    made = from_config(described.args)
    assert made._bound_deployment.name == "gateway"
    with pytest.raises(ConfigError, match="serve: replica"):
        from_config({**described.args, "replica": 2})
    with pytest.raises(ConfigError, match="serve: trust_remote_code counts on the command line alone"):
        from_config({**described.args, "trust_remote_code": True})

"""A fine-tuned model in MLflow: logged without a pickle, loaded, served, and compared with the champion."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient

from qa_ray.answers import QuestionAnswerer
from qa_ray.config.operation import TrackingConfig
from qa_ray.errors import StorageError
from qa_ray.storage.run_folder import RunFolder
from qa_ray.tracking.recording import start_tracker
from qa_ray.tracking.tracker import Candidate, RunStatus, Tracker

ASKED = pd.DataFrame(
    {
        "question": ["Which town has a bridge?", "Which king marched?"],
        "context": ["the river flows through a town with a bridge", "the king of the country marched north"],
    }
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Path:
    folder = tmp_path_factory.mktemp("registry")
    shutil.copy(empty_database, folder)
    return folder


@pytest.fixture(scope="module")
def tracker(place: Path) -> Iterator[Tracker]:
    tracker = start_tracker(TrackingConfig(uri=f"sqlite:///{place}/mlflow.db"), RunFolder(str(place), "first"))
    yield tracker
    tracker.finish(RunStatus.FINISHED)


@pytest.fixture(scope="module")
def logged(tracker: Tracker, place: Path, bert: Path) -> Iterator[str]:
    """URI of a logged model, in the store that MLflow's own functions look into."""
    # Not set_tracking_uri: what that has set once beats the environment variable for the rest of the process.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{place}/mlflow.db")
        yield tracker.log_model(bert, step=7)


@pytest.fixture
def register(tracker: Tracker, logged: str) -> Callable[..., str]:
    def register(name: str, score: float, data: str = "a1", metric: str = "f1") -> str:
        return tracker.register(name, Candidate(uri=logged, metric=metric, score=score, data=data))

    return register


def champion(place: Path, name: str) -> str:
    return str(MlflowClient(f"sqlite:///{place}/mlflow.db").get_model_version_by_alias(name, "champion").version)


def test_loaded_model_answers_as_the_package_does(logged: str, bert: Path) -> None:
    answers = mlflow.pyfunc.load_model(logged).predict(ASKED)
    expected = QuestionAnswerer.from_pretrained(str(bert))(
        question=list(ASKED["question"]), context=list(ASKED["context"])
    )
    assert list(answers.columns) == ["answer", "score", "start", "end"]
    assert answers.to_dict("records") == [{name: answer[name] for name in answers.columns} for answer in expected]


def test_logged_model_can_be_opened_by_its_uri(logged: str) -> None:
    assert QuestionAnswerer.from_pretrained(logged)(question="Which town?", context="a town")["answer"] is not None


def test_logged_model_holds_no_pickle_and_a_signature(logged: str, tmp_path: Path) -> None:
    folder = Path(mlflow.artifacts.download_artifacts(logged, dst_path=str(tmp_path)))
    names = {path.name for path in folder.rglob("*") if path.is_file()}
    assert {"MLmodel", "mlflow_model.py", "model.safetensors", "input_example.json"} <= names
    assert not [name for name in names if Path(name).suffix in (".pkl", ".pickle", ".bin", ".pt", ".pth", ".pyc")]
    signature = mlflow.models.get_model_info(logged).signature
    assert signature.inputs.input_names() == ["question", "context"]
    assert signature.outputs.input_names() == ["answer", "score", "start", "end"]


def test_model_is_an_output_of_its_run(tracker: Tracker, logged: str, place: Path) -> None:
    (output,) = MlflowClient(f"sqlite:///{place}/mlflow.db").get_run(tracker.run_id).outputs.model_outputs
    assert (f"models:/{output.model_id}", output.step) == (logged, 7)


def test_champion_changes_only_for_a_better_score_on_the_same_data(
    register: Callable[..., str], place: Path, logged: str
) -> None:
    assert register("qa", 80.0) == "qa version 1 is the champion: there was none"
    said = register("qa", 79.0)
    assert said.endswith("version 1 stays the champion: f1 79.00 < 80.00 of version 1 on the same data")
    assert "= 80.00" in register("qa", 80.0)
    assert "cannot be compared" in register("qa", 90.0, data="b2")
    assert "cannot be compared" in register("qa", 90.0, metric="exact_match")
    assert champion(place, "qa") == "1"
    assert register("qa", 81.0) == "qa version 6 is the champion: f1 81.00 > 80.00 of version 1 on the same data"
    assert champion(place, "qa") == "6"
    assert len(mlflow.pyfunc.load_model("models:/qa@champion").predict(ASKED)) == 2


def test_model_that_cannot_be_read_is_an_error_in_words(tracker: Tracker, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be logged in MLflow"):
        tracker.log_model(tmp_path / "nothing")


def test_served_model_answers_over_http(logged: str, place: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", logged, "--env-manager", "local"]
    # MLflow starts uvicorn by its name, as in an environment that is activated.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{place}/mlflow.db", "PATH": path}
    with open(place / "serve.log", "wb") as log:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            stdout=log, stderr=log, env=environment, start_new_session=True,
        )  # fmt: skip
    try:
        while not answers(f"http://127.0.0.1:{port}/ping"):
            assert process.poll() is None, (place / "serve.log").read_text()
            time.sleep(0.2)
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations",
            data=json.dumps({"dataframe_split": ASKED.to_dict("split")}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as answer:
            predictions = json.load(answer)["predictions"]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    expected = mlflow.pyfunc.load_model(logged).predict(ASKED).to_dict("records")
    assert [(item["answer"], item["start"]) for item in predictions] == [
        (item["answer"], item["start"]) for item in expected
    ]


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False

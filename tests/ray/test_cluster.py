"""Jobs on a Ray cluster of several hosts with token authentication, submitted over HTTP, with S3 and MLflow.

The hosts are namespaces of this machine, see namespaces.py.
"""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from answerers import assert_same, open_cpu
from hosted import HEAD, ROOT, SECRETS, RemoteCluster, remote_cluster
from mlflow import MlflowClient
from namespaces import LAPTOP, why_impossible
from ray_runs import command, outcome_of, prepare, questions, write_squad

from qa_ray.storage.checkpoint_store import MANIFEST

pytestmark = pytest.mark.long

NAMES = [first + second for first in ("An", "Ber", "Cla", "Do", "El", "Fri", "Ger") for second in "aeiouy"]
# Three questions a name, in batches of four.
STEPS_PER_EPOCH = -(-3 * len(NAMES) // 4)
CHANGES = {
    "model.dropout": 0.0,
    "train.epochs": 3,
    "checkpoint.every-steps": 2,
    "checkpoint.keep": 1000,
}
# In parts of four: enough that both nodes answer for a while.
ASKED = [
    {"id": f"{copy}-{number}", "question": row["question"], "context": row["context"]}
    for copy in range(6)
    for number, row in enumerate(questions(NAMES))
]
# Ray's own records: where the tasks of a prediction ended, each of which answers a part.
_ANSWERED = """
import json, sys
from ray.util.state import list_nodes, list_tasks
addresses = {node.node_id: node.node_ip for node in list_nodes(sys.argv[1])}
chosen = [("name", "=", "MapWorker(MapBatches(PartAnswerer)).submit"), ("state", "=", "FINISHED")]
print(json.dumps([addresses[task.node_id] for task in list_tasks(sys.argv[1], filters=chosen, limit=10_000)]))
"""
# What a caller with the token and one without it are told, once somebody answers.
_ASK = """
import json, os, sys, time, urllib.error
from served import fetch
url, question = sys.argv[1], sys.argv[2].encode()
while True:
    try:
        if fetch(f"{url}/ready")[0] == 200:
            break
    except urllib.error.URLError:
        pass
    time.sleep(0.2)
with_token = fetch(f"{url}/answer", question, authorization=f"Bearer {os.environ['QA_RAY_SERVE_TOKEN']}")
print(json.dumps([[status, json.loads(body)] for status, body in (with_token, fetch(f"{url}/answer", question))]))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = prepare(tmp_path_factory.mktemp("cluster"))
    write_squad(place / "train.json", NAMES)
    return place


@pytest.fixture(scope="module")
def cluster(place: Path) -> Iterator[RemoteCluster]:
    """A head and two workers; a third worker's host stands idle."""
    reason = why_impossible()
    if reason:
        pytest.skip(reason)
    with remote_cluster(place, ["worker1", "worker2", "worker3"]) as cluster:
        for name in ("train", "validation"):
            cluster.copy(str(place / f"{name}.json"), cluster.uri(f"data/{name}.json"))
        cluster.start("worker1", "worker2")
        yield cluster


@pytest.fixture(scope="module")
def train(cluster: RemoteCluster, place: Path) -> Callable[..., subprocess.Popen[str]]:
    """Submit a training run by its name; the one that makes a model for the registry is recorded in MLflow."""

    def submit(name: str, **changes: object) -> subprocess.Popen[str]:
        uris = {f"data.{split}": cluster.uri(f"data/{split}.json") for split in ("train", "validation")}
        there = uris | {"run.storage-path": cluster.uri("runs")}
        words = command(place, name, CHANGES | there | changes)[2:]
        if "tracking.registered-model" in changes:
            words.remove("--tracking.no-enabled")
        return cluster.submit("python", "jobs/train.py", *words, name=name)

    return submit


def outcome(cluster: RemoteCluster, name: str, folder: Path) -> dict[str, object]:
    cluster.copy(cluster.uri(f"runs/{name}"), str(folder))
    return outcome_of(folder)


def manifest(name: str, step: int) -> str:
    return f"runs/{name}/checkpoints/step-{step:08d}/{MANIFEST}"


@pytest.fixture(scope="module")
def calm(train: Callable[..., subprocess.Popen[str]]) -> str:
    """Log of a run that nothing disturbs."""
    return finish(train("calm", **{"tracking.registered-model": "trips"}))


def finish(job: subprocess.Popen[str]) -> str:
    """Wait for a job that must succeed, and return what was seen of it."""
    log, _ = job.communicate()
    assert job.returncode == 0, log[-8000:]
    return log


def test_job_submitted_over_http_trains_on_both_nodes_with_data_and_run_on_s3(
    cluster: RemoteCluster, calm: str, place: Path, tmp_path: Path
) -> None:
    assert "train: 126 questions in 126 windows" in calm
    assert outcome(cluster, "calm", tmp_path)["metrics"]
    state = json.loads((tmp_path / "checkpoints" / f"step-{3 * STEPS_PER_EPOCH:08d}" / "state.json").read_text())
    assert state["world_size"] == 2
    client = MlflowClient(f"sqlite:///{place}/mlflow.db")
    champion = client.get_model_version_by_alias("trips", "champion")
    run = client.get_run(champion.run_id)
    assert (run.info.run_name, run.info.status) == ("calm", "FINISHED")
    # Two workers of one CPU each, on hosts that have one: each trained on its own.
    alive = cluster.hosts.run("head", ["ray", "status"])
    assert "0.0/2.0 CPU" in alive


def test_node_cut_off_in_mid_epoch_changes_nothing(
    cluster: RemoteCluster, train: Callable[..., subprocess.Popen[str]], calm: str, tmp_path: Path
) -> None:
    disturbed = train("disturbed")
    cluster.wait_for(manifest("disturbed", 2), disturbed)
    cluster.hosts.cut_off("worker2")
    cluster.join("worker3")
    log = finish(disturbed)
    assert "going on from the checkpoint step-000000" in log
    assert outcome(cluster, "disturbed", tmp_path / "disturbed") == outcome(cluster, "calm", tmp_path / "calm")


def test_model_from_the_registry_is_evaluated_on_both_nodes(cluster: RemoteCluster, calm: str, tmp_path: Path) -> None:
    data = ["--data", cluster.uri("data/validation.json"), "--out", str(tmp_path / "scores")]
    workers = ["--cluster.num-workers", "2", "--cluster.cpus-per-worker", "1"]
    log = finish(cluster.submit("python", "jobs/evaluate.py", "models:/trips@champion", *data, *workers))
    assert "models:/trips@champion: 9 questions in 9 windows" in log
    (tmp_path / "calm").mkdir()
    cluster.copy(cluster.uri("runs/calm/evaluation"), str(tmp_path / "calm"))
    found, expected = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("scores", "calm"))
    assert found["f1"] == pytest.approx(expected["f1"])


def ask_the_service(cluster: RemoteCluster, folder: Path) -> None:
    """Check that a service on the cluster answers with the champion, and only those who bring its token."""
    url, asked = f"http://{cluster.hosts.addresses[HEAD]}:8000", {key: ASKED[0][key] for key in ("question", "context")}
    there = {"PYTHONPATH": str(ROOT / "tests")}
    told = cluster.hosts.run(LAPTOP, [sys.executable, "-c", _ASK, url, json.dumps(asked)], env=there)
    (status, found), (refused, why) = json.loads(told.splitlines()[-1])
    assert status == 200, found
    assert (found["model"], found["version"]) == ("models:/trips@champion", "1")
    cluster.copy(cluster.uri("runs/calm/model"), str(folder))
    assert_same(found["answers"], [open_cpu(folder)(**asked)])
    assert (refused, why["error"].partition(":")[0]) == (401, "send the service's token")


def test_service_that_is_submitted_as_a_job_answers_until_it_is_stopped(
    cluster: RemoteCluster, calm: str, tmp_path: Path
) -> None:
    options = ["--host", "0.0.0.0", "--cpus-per-replica", "1"]
    job = cluster.submit("python", "jobs/serve.py", "models:/trips@champion", *options, name="service")
    log = ""
    assert job.stdout
    while "(the page;" not in log:
        line = job.stdout.readline()
        assert line, log
        log += line
    ask_the_service(cluster, tmp_path)
    cluster.job("stop", "service")
    log += job.communicate()[0]
    assert "stopped" in log
    assert cluster.hosts.environment["QA_RAY_SERVE_TOKEN"] not in log
    assert details(cluster, "service")["status"] == "STOPPED"


def test_service_that_is_deployed_from_the_config_file_answers(
    cluster: RemoteCluster, calm: str, tmp_path: Path
) -> None:
    config = yaml.safe_load((ROOT / "jobs" / "serve.yaml").read_text())
    config["applications"][0]["args"] |= {"model": "models:/trips@champion", "cpus_per_replica": 1}
    (tmp_path / "serve.yaml").write_text(yaml.safe_dump(config))
    there = ["--address", cluster.address]
    cluster.hosts.run(LAPTOP, ["serve", "deploy", *there, str(tmp_path / "serve.yaml")])
    ask_the_service(cluster, tmp_path)
    cluster.hosts.run(LAPTOP, ["serve", "shutdown", "-y", *there])


def test_stopped_job_ends_in_a_checkpoint(
    cluster: RemoteCluster, train: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    job = train("stopped", **{"train.epochs": 1000})
    cluster.wait_for(manifest("stopped", 2), job)
    cluster.job("stop", "stopped")
    log, _ = job.communicate()
    stopped = re.search(r"stopped at step (\d+) of 32000 after a checkpoint: run the same command with", log)
    assert stopped, log[-8000:]
    cluster.copy(cluster.uri(f"runs/stopped/checkpoints/step-{int(stopped[1]):08d}"), str(tmp_path))
    assert (tmp_path / MANIFEST).exists()
    assert (details(cluster, "stopped")["status"], job.returncode) == ("STOPPED", 0)


def details(cluster: RemoteCluster, name: str) -> dict[str, Any]:
    """What the head knows of a job."""
    script = "import json, sys; from ray.job_submission import JobSubmissionClient as Client; "
    script += "print(json.dumps(Client(sys.argv[1]).get_job_info(sys.argv[2]).dict()))"
    told = cluster.hosts.run(LAPTOP, [sys.executable, "-c", script, cluster.address, name])
    return dict(json.loads(told.splitlines()[-1]))


def test_job_fails_with_its_own_exit_code_runs_the_code_that_was_sent_and_reads_the_nodes_environment(
    cluster: RemoteCluster,
) -> None:
    script = "import os, sys, qa_ray; print(qa_ray.__file__, sorted(os.listdir())); "
    script += "print(os.environ['MLFLOW_TRACKING_URI'], os.environ['LEVEL']); sys.exit(7)"
    chosen = ("--runtime-env-json", json.dumps({"env_vars": {"LEVEL": "eleven"}}))
    job = cluster.submit("python", "-c", script, options=chosen, name="failed")
    log, _ = job.communicate()
    assert job.returncode == 1
    assert details(cluster, "failed")["driver_exit_code"] == 7
    assert re.search(r"working_dir_files/\w+/qa_ray/__init__.py", log), log
    assert "'jobs'" in log
    assert "'tests'" not in log
    assert f"{cluster.mlflow} eleven" in log


def test_secrets_of_the_nodes_are_shown_nowhere(cluster: RemoteCluster, calm: str) -> None:
    known = cluster.job("list")
    assert "submission_id='calm'" in known
    for name in SECRETS:
        assert cluster.hosts.environment[name] not in calm + known


def test_whoever_has_not_the_token_is_refused(cluster: RemoteCluster) -> None:
    stranger = {"env": {"RAY_AUTH_TOKEN": "0" * 32}}
    with pytest.raises(AssertionError, match="invalid or incorrect"):
        cluster.job("list", **stranger)
    with pytest.raises(AssertionError, match=r"(?i)unauthenticated|invalid.*token"):
        cluster.hosts.run(
            "worker1", ["ray", "status", "--address", f"{cluster.hosts.addresses['head']}:6379"], **stranger
        )


# The last one: it leaves the cluster with a single worker.
def test_questions_are_answered_by_both_nodes_and_once_each_when_one_is_cut_off(
    cluster: RemoteCluster, calm: str, tmp_path: Path
) -> None:
    (tmp_path / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ASKED))
    cluster.copy(str(tmp_path / "asked.jsonl"), cluster.uri("data/asked.jsonl"))
    files = ["--data", cluster.uri("data/asked.jsonl"), "--out", cluster.uri("predictions"), "--part-size", "4"]
    workers = ["--cluster.num-workers", "2", "--cluster.cpus-per-worker", "1"]
    answers = ["--precision", "fp32", "--no-answer", "never"]
    job = cluster.submit("python", "jobs/predict.py", "models:/trips@champion", *files, *workers, *answers)
    cluster.wait_for("predictions/answers/part-00000-000000.parquet", job)
    while len(answered := nodes_that_answered(cluster)) < 2:
        assert job.poll() is None, f"both nodes were to answer, not {answered}: {job.communicate()[0][-8000:]}"
    names = {address: name for name, address in cluster.hosts.addresses.items()}
    assert HEAD not in {names[address] for address in answered}
    lost = max(answered)
    cluster.hosts.cut_off(names[lost])
    log = finish(job)
    assert f"address: {lost}" in log, "the job ended before the node was missed"
    assert f"{len(ASKED):,} rows in {len(ASKED) // 4} files" in log
    (tmp_path / "model").mkdir()
    for source, target in (("runs/calm/model", "model"), ("predictions", "predictions")):
        cluster.copy(cluster.uri(source), str(tmp_path / target))
    parts = [pq.read_table(path).to_pylist() for path in sorted((tmp_path / "predictions/answers").glob("part-*"))]
    assert [row["id"] for part in parts for row in part] == [row["id"] for row in ASKED]
    assert len({row["answer"] for part in parts for row in part}) > len(NAMES) // 2, "answers are alike"
    answerer = open_cpu(tmp_path / "model")
    for number, part in enumerate(parts):
        assert_same(part, answerer(ASKED[4 * number : 4 * number + 4], handle_impossible_answer=False))


def nodes_that_answered(cluster: RemoteCluster) -> set[str]:
    """Addresses of the nodes that have answered parts of the prediction."""
    told = cluster.hosts.run(LAPTOP, [sys.executable, "-c", _ANSWERED, cluster.address])
    return set(json.loads(told.splitlines()[-1]))

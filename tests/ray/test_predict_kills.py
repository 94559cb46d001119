"""The prediction job on a local cluster when it, or the process that answers, is killed."""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from predictions import ROWS, asked_of, parts, prepare, read, write_lines
from ray_runs import processes

from qa_ray.config.operation import ClusterConfig
from qa_ray.errors import ClusterError
from qa_ray.prediction.job import predict

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("ray_cluster")]

MANY = 160
"""Questions of a job that lasts long enough to be killed in the middle."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("predict"))


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Questions of a job that lasts long enough to be killed in the middle."""
    path = tmp_path / "many.jsonl"
    write_lines(path, [ROWS[number % len(ROWS)] | {"id": number} for number in range(MANY)])
    return path


def test_killed_job_ends_as_if_nothing_had_happened(place: Path, many: Path, tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "jobs" / "predict.py"
    words = ["--data", str(many), "--out", str(tmp_path / "out"), "--part-size", "2"]
    command = [sys.executable, str(script), str(place / "run"), *words, "--cluster.local-cpus", "2"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while len(parts(tmp_path / "out")) < 3:
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    before = parts(tmp_path / "out")
    assert 3 <= len(before) < MANY // 2
    subprocess.run(command, check=True, capture_output=True)
    after = parts(tmp_path / "out")
    assert {name: after[name] for name in before} == before
    assert [row["id"] for row in read(tmp_path / "out")] == [str(number) for number in range(MANY)]


def kill_actors_after_the_first_part(out: Path, killed: list[int]) -> threading.Thread:
    def kill() -> None:
        while not parts(out):
            time.sleep(0.005)
        for process in processes("MapWorker"):
            process.kill()
            killed.append(process.pid)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("failures", [0, 1])
def test_part_of_a_killed_actor_is_done_again_or_the_job_ends_in_words(
    failures: int, place: Path, many: Path, tmp_path: Path
) -> None:
    out, cluster = tmp_path / "out", ClusterConfig(num_workers=1, max_failures=failures)
    given = asked_of(place, out, data=str(many), part_size=2, cluster=cluster)
    killed: list[int] = []
    killer = kill_actors_after_the_first_part(out, killed)
    if failures:
        predict(given)
        assert [row["id"] for row in read(out)] == [str(number) for number in range(MANY)]
    else:
        with pytest.raises(ClusterError, match=r"cluster\.max_failures is reached"):
            predict(given)
        assert 0 < len(parts(out)) < MANY // 2
    killer.join()
    assert killed

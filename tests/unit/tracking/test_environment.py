"""What a run was made with."""

import subprocess
from pathlib import Path

import pytest
from nvml import GPUS, nvml
from pynvml import NVMLError_DriverNotLoaded

from qa_ray.tracking.environment import describe_environment, versions


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "--quiet")
    (tmp_path / "code.py").write_text("1")
    git(tmp_path, "add", "code.py")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    return tmp_path


def test_versions_and_hardware_are_named() -> None:
    found = describe_environment()
    assert {"python", "platform", "qa_ray", "torch", "transformers", "ray", "cpu_cores", "memory_gb"} <= found.keys()
    assert all(isinstance(value, str) and value for value in found.values())
    assert int(found["cpu_cores"]) >= 1


def test_commit_is_named_with_whether_the_code_differs_from_it(repository: Path) -> None:
    found = describe_environment(repository)
    assert (found["git_commit"], found["git_changed"]) == (git(repository, "rev-parse", "HEAD"), "false")
    (repository / "notes.txt").write_text("not known to git")
    assert describe_environment(repository)["git_changed"] == "false"
    (repository / "code.py").write_text("2")
    assert describe_environment(repository)["git_changed"] == "true"


def test_what_is_not_there_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "git_commit" not in describe_environment(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = describe_environment(nvml=nvml([]))
    assert not {"git_commit", "git_changed", "gpu"} & found.keys()
    assert versions(("qa_ray", "no_such_package")).keys() == {"qa_ray"}


def test_gpus_are_counted_by_name() -> None:
    assert describe_environment(nvml=nvml(GPUS))["gpu"] == "2 x NVIDIA A100, 1 x NVIDIA T4"


def test_driver_that_fails_names_no_gpu() -> None:
    def start() -> None:
        raise NVMLError_DriverNotLoaded

    assert "gpu" not in describe_environment(nvml=nvml(GPUS, start))

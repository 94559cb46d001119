"""For unit tests: tiny models of every family and an empty MLflow store, made once for all of them; folders of runs."""

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from families import FAMILIES

from qa_ray.storage.run_folder import RunFolder


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Save a family's tiny model and tokenizer, and return the folder; tests must not write into it."""

    @cache
    def save(family: str) -> Path:
        folder = tmp_path_factory.mktemp(family)
        FAMILIES[family].save(folder)
        return folder

    return save


@pytest.fixture(scope="session")
def bert(saved: Callable[[str], Path]) -> Path:
    """Folder of a tiny BERT with a span head."""
    return saved("bert")


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """File of a new MLflow store, which takes a second to make; tests copy it."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def copies(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder in which temporary files and folders are made."""
    folder = tmp_path_factory.mktemp("copies")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def folder(tmp_path: Path, copies: Path) -> RunFolder:
    """A new run's folder on the local disk."""
    return RunFolder(str(tmp_path / "runs"), "run")


@pytest.fixture(params=["local", "s3"])
def anywhere(request: pytest.FixtureRequest, folder: RunFolder) -> RunFolder:
    """A new run's folder on the local disk and on S3."""
    return RunFolder(request.getfixturevalue("s3_folder"), "run") if request.param == "s3" else folder

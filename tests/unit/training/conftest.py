"""Folders of runs."""

import tempfile
from pathlib import Path

import pytest

from qa_ray.storage import RunFolder


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

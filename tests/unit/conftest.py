"""For unit tests: tiny models of every family and an empty MLflow store, made once for all of them."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from families import FAMILIES


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

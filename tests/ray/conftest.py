"""One local Ray cluster for all tests of this folder, and two finished runs on it."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import ray.data
from ray_runs import EVERY_STEP, outcome_of, prepare, small_config

from qa_ray.config.operation import ClusterConfig
from qa_ray.runs.connection import start_ray
from qa_ray.runs.driver import TrainResult, train


@pytest.fixture(scope="session")
def ray_cluster(s3: str) -> Iterator[None]:
    """A local cluster as jobs start it; the S3 server comes first, since workers have this process's environment."""
    before = dict(os.environ)
    # The end of a run is seen sooner.
    os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] = "0.2"
    start_ray(ClusterConfig(local_cpus=2))
    # Other clusters of the tests are not local ones; but jobs that join this one need what Ray says of its token.
    mode = {name: value for name, value in os.environ.items() if name == "RAY_AUTH_MODE"}
    os.environ.clear()
    os.environ.update(before | mode)
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny model, questions about trips, and the runs on them."""
    return prepare(tmp_path_factory.mktemp("trips"))


@pytest.fixture(scope="session")
def trained(ray_cluster: None, place: Path) -> TrainResult:
    """A run that MLflow has all of: its curves, its node's use, and its model."""
    tracking = {"registered_model": "trips", "system_metrics_every_s": 0.5}
    return train(small_config(place, "first", tracking=tracking, evaluate={"per_epoch": 2}))


@pytest.fixture(scope="session")
def undisturbed(ray_cluster: None, place: Path) -> dict[str, Any]:
    """What is left by a run that is saved after every step, and to which nothing happens."""
    train(small_config(place, "undisturbed", **EVERY_STEP))
    return outcome_of(place / "runs" / "undisturbed")

"""One local Ray cluster for all tests of this folder."""

import logging

import pytest
import ray
import ray.data


@pytest.fixture(scope="session")
def ray_cluster(s3: str):
    # The S3 server comes first: workers have the environment of this process, with its credentials.
    # Without an address it would join a cluster that happens to run on this machine.
    ray.init("local", num_cpus=2, include_dashboard=False, logging_level=logging.WARNING)
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield
    ray.shutdown()

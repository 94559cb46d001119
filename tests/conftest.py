"""For all tests: property tests try the same examples each time and are never failed for being slow; an S3 server.

A run ends with what was tested and what was left out.
"""

import os
from collections.abc import Generator, Iterator

import pytest
from account import account
from hypothesis import HealthCheck, settings

# Before transformers and huggingface_hub are imported, which read it once.
os.environ["HF_HUB_OFFLINE"] = "1"
# The tokenizer's own threads only get in each other's way with texts this short.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Several threads for matrices this small wait for each other more than they compute.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Ray would send how it is used to its makers.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
# Jobs would join the cluster of whoever runs the tests.
os.environ.pop("RAY_ADDRESS", None)

settings.register_profile("tests", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> Generator[None]:
    """Close with two lines, below whatever else pytest has to say."""
    yield
    for line in account(terminalreporter.stats, config):
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """URI of an empty bucket (s3://BUCKET?endpoint_override=...) on an S3 server of our own."""
    # Only here: the server takes a second to import, and most tests need none.
    from s3 import s3_server

    with s3_server("bucket") as (_, uri):
        yield uri


@pytest.fixture
def s3_folder(s3: str, request: pytest.FixtureRequest) -> str:
    """URI of a folder in the bucket that is this test's own."""
    bucket, mark, query = s3.partition("?")
    return f"{bucket}/{request.node.originalname}{mark}{query}"

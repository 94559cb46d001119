"""Variables that go from a sweep to its trials: as they are, to other processes, and nowhere else."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from qa_ray.tuning.lent import borrow, lend

VARIABLES = {"MLFLOW_TRACKING_PASSWORD": 'c4n4ry $HOME "ü"\n', "MLFLOW_TRACKING_USERNAME": ""}
TELL = """
import json, os, sys
from qa_ray.tuning.lent import borrow
borrow(sys.argv[1])
print(json.dumps({name: value for name, value in os.environ.items() if name.startswith("MLFLOW_TRACKING_")}))
"""


def test_other_process_borrows_what_is_lent_as_often_as_it_likes() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_TRACKING_")}
    with lend(VARIABLES) as place:
        assert "c4n4ry" not in place
        for _ in range(2):
            done = subprocess.run([sys.executable, "-c", TELL, place], env=environment, capture_output=True, check=True)
            assert json.loads(done.stdout) == VARIABLES
    assert not Path(place).exists()


def test_what_cannot_be_read_leaves_the_environment_and_is_told(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "node")
    with lend(VARIABLES) as place:
        pass
    with caplog.at_level(logging.WARNING):
        borrow(place)
    assert os.environ["MLFLOW_TRACKING_USERNAME"] == "node"
    assert "cannot be read here (No such file or directory): the node's count" in caplog.text

"""What MLflow's registry is told of a finished run's model."""

import dataclasses
import json
from pathlib import Path

import pytest
from finished_run import finished_run
from small_runs import changed, tiny_config

from qa_ray.config.policies import Language
from qa_ray.runs.conclusion import keep_model
from qa_ray.runs.resume import TrainResult
from qa_ray.tracking.tracker import Candidate, Tracker


class Registry(Tracker):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.candidates: list[Candidate] = []

    def register(self, name: str, candidate: Candidate) -> str:
        self.candidates.append(candidate)
        return name


@pytest.mark.parametrize(("language", "metric"), [(Language.SQUAD, "f1"), (Language.CHINESE, "f1 (zh)")])
def test_champion_is_only_measured_against_by_the_same_rule(tmp_path: Path, language: Language, metric: str) -> None:
    run = finished_run(tmp_path)
    result = TrainResult.read(run)
    assert result is not None
    result = dataclasses.replace(result, logged_model="models:/m-1", data="d1")
    config = changed(
        tiny_config(tmp_path),
        tracking={"enabled": True, "registered_model": "reader"},
        evaluate={"language": language},
    )
    registry = Registry()
    assert keep_model(result, config, run, registry).registered == "reader"
    assert registry.candidates == [
        Candidate(uri="models:/m-1", metric=metric, score=result.best["eval_f1"], data="d1"),
    ]
    assert json.loads(run.read("result.json") or b"")["registered"] == "reader"

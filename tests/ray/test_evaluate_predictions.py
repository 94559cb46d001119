"""A model beside answers that are there already: here its own, so that the two must be even."""

import json
from pathlib import Path
from typing import Any

import pytest
from answerers import save_scattered
from families import FAMILIES
from ray_runs import NAMES, write_squad
from strict import read

from qa_ray.config.operation import ClusterConfig
from qa_ray.config.policies import Precision
from qa_ray.evaluation.job import evaluate
from qa_ray.evaluation.options import EvaluationOptions

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("ray_cluster")]


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Options for a model that may abstain, with a file of its own answers."""
    place = tmp_path_factory.mktemp("evaluate")
    FAMILIES["bert"].save(place / "tiny")
    save_scattered(place / "model", place / "tiny", seed=1, threshold=-28.0)
    write_squad(place / "dev.json", NAMES[:8])
    return {
        "data": str(place / "dev.json"),
        "precision": Precision.FP32,
        "num_resamples": 200,
        "cluster": ClusterConfig(num_workers=1, cpus_per_worker=1),
    }


@pytest.fixture(scope="module")
def model(asked: dict[str, Any]) -> str:
    return str(Path(asked["data"]).parent / "model")


@pytest.fixture(scope="module")
def file(asked: dict[str, Any], model: str) -> Path:
    out = Path(asked["data"]).parent / "alone"
    evaluate(EvaluationOptions(**asked, model=model, out=out))
    return out / "predictions.json"


@pytest.mark.parametrize("first", ["model", "predictions"])
def test_model_and_its_own_answers_in_a_file_are_even(
    asked: dict[str, Any], model: str, file: Path, tmp_path: Path, first: str
) -> None:
    sources: dict[str, Any] = (
        {"model": model, "against": str(file)} if first == "model" else {"predictions": file, "against": model}
    )
    result = evaluate(EvaluationOptions(**asked, **sources, out=tmp_path))
    assert result.comparison is not None
    assert {difference.mean for difference in result.comparison.differences.values()} == {0}
    assert "NoAns_f1" in result.comparison.differences, "scores are those of v2.0"
    assert not result.comparison.flips
    assert not all(json.loads(file.read_text()).values()), "nothing is left unanswered"
    places = [tmp_path, tmp_path / "against"]
    of_model, of_file = places if first == "model" else places[::-1]
    assert (of_model / "spans.safetensors").is_file()
    assert not (of_file / "spans.safetensors").exists()
    assert read(of_file / "predictions.json") == read(of_model / "predictions.json") == read(file)

import os
import subprocess
import sys
from pathlib import Path

import pytest

from qa_ray.scores import squad_metric
from qa_ray.scores.squad_metric import SquadMetric

REFERENCES = [
    {"id": "1", "answers": {"text": ["cat", "a black cat"], "answer_start": [12, 4]}},
    {"id": "2", "answers": {"text": ["dog"], "answer_start": [0]}},
]

LOAD_BY_PATH = """
import evaluate
path, cache = {path!r}, {cache!r}
metric = evaluate.load(path, "squad_v2", cache_dir=cache)
prediction = {{"id": "1", "prediction_text": "cat", "no_answer_probability": 0.1}}
reference = {{"id": "1", "answers": {{"text": ["the cat"], "answer_start": [3]}}}}
print(metric.compute(predictions=[prediction], references=[reference])["exact_match"])
"""


def test_squad_scores_the_format_of_the_hub_metric(tmp_path: Path) -> None:
    predictions = [{"id": "1", "prediction_text": "Black cat"}, {"id": "2", "prediction_text": "big dog"}]
    scores = SquadMetric(cache_dir=str(tmp_path)).compute(predictions=predictions, references=REFERENCES)
    assert scores == {"exact_match": 50, "f1": pytest.approx(100 * (1 + 2 / 3) / 2), "total": 2}


def test_squad_v2_takes_empty_answers_and_a_threshold(tmp_path: Path) -> None:
    references = [*REFERENCES, {"id": "3", "answers": {"text": [], "answer_start": []}}]
    predictions = [
        {"id": "1", "prediction_text": "cat", "no_answer_probability": 0.25},
        {"id": "2", "prediction_text": "dog", "no_answer_probability": 0.75},
        {"id": "3", "prediction_text": "", "no_answer_probability": 0.5},
    ]
    metric = SquadMetric("squad_v2", cache_dir=str(tmp_path))
    scores = metric.compute(predictions=predictions, references=references)
    assert (scores["exact_match"], scores["NoAns_exact"], scores["threshold"]) == (100, 100, 1.0)
    scores = metric.compute(predictions=predictions, references=references, no_answer_threshold=0.5)
    assert (scores["HasAns_exact"], scores["NoAns_exact"]) == (50, 100)
    scores = metric.compute(predictions=predictions, references=references, no_answer_threshold=None)
    assert scores["threshold"] == scores["best_f1_thresh"] == 1.75


def test_texts_are_compared_by_the_rule_of_a_language(tmp_path: Path) -> None:
    predictions = [{"id": "1", "prediction_text": "北京（"}]
    references = [{"id": "1", "answers": {"text": ["北京"], "answer_start": [0]}}]
    metric = SquadMetric(cache_dir=str(tmp_path))
    assert metric.compute(predictions=predictions, references=references)["f1"] == 0
    assert metric.compute(predictions=predictions, references=references, language="zh")["f1"] == 100


def test_unknown_configuration_is_refused() -> None:
    with pytest.raises(ValueError, match=r"config_name='squad_v3' must be one of squad, squad_v2"):
        SquadMetric("squad_v3")


def test_metric_loads_by_path_without_the_hub(tmp_path: Path) -> None:
    path = squad_metric.__file__
    script = LOAD_BY_PATH.format(path=path, cache=str(tmp_path / "metrics"))
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "HF_EVALUATE_OFFLINE": "1",
        "HF_MODULES_CACHE": str(tmp_path / "modules"),
        "HF_HOME": str(tmp_path / "home"),
        "PYTHONPATH": str(Path(path).parents[2]),
    }
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "100.0"

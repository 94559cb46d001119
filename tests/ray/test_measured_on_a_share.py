"""A run that is measured on a share of the validation questions while it trains, and on all of them in the end."""

import json
from pathlib import Path

import pytest
from ray_runs import metrics_of, small_config

from qa_ray.config.policies import BestBy
from qa_ray.runs.driver import train

pytestmark = pytest.mark.usefixtures("ray_cluster")


def test_what_is_kept_is_measured_on_all_questions(place: Path) -> None:
    often = {"per_epoch": 2, "best_by": BestBy.LOSS}
    kept = train(small_config(place, "share", evaluate=often | {"share": 0.34}))
    train(small_config(place, "whole", evaluate=often))
    folder = place / "runs" / "share"
    lines = [line for line in metrics_of(folder) if line["phase"] == "evaluate"]
    on_share = [line for line in lines if "eval_share_loss" in line]
    (on_all,) = (line for line in lines if "eval_loss" in line and line["step"])
    assert [line["step"] for line in on_share] == [3, 6, 9, 12, 15, 18]
    best = min(on_share, key=lambda line: line["eval_share_loss"])
    assert on_all["step"] == best["step"] == kept.step
    (same,) = (line for line in metrics_of(place / "runs" / "whole") if line["step"] == kept.step and "eval_f1" in line)
    scores = {name: value for name, value in same.items() if name.startswith("eval_")}
    assert {name: on_all[name] for name in scores} == scores
    assert {name: kept.best[name] for name in scores} == scores
    predictions = json.loads((folder / "evaluation" / "predictions.json").read_text())
    assert set(predictions) == {f"validation-{number}" for number in range(9)}
    assert json.loads((folder / "model" / "qa_ray.json").read_text())["no_answer_threshold"] == scores["eval_threshold"]

"""What MLflow has of a run, and what it should have: each point of each metric once."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from ray_runs import SPEEDS

from qa_ray.storage.run_folder import TRACKING
from qa_ray.tracking.metrics import metrics_of

Points = dict[str, list[tuple[int, float | None]]]
"""By metric its steps and values, but for speeds, which differ from run to run."""


def due(lines: Iterable[Mapping[str, Any]]) -> Points:
    """What lines of metrics.jsonl say."""
    points: Points = {}
    for line in lines:
        for name, value in metrics_of(line).items():
            points.setdefault(name, []).append((line["step"], None if name in SPEEDS else value))
    return points


def recorded(uri: str, run: Path) -> Points:
    """What MLflow has."""
    client, run_id = MlflowClient(uri), json.loads((run / TRACKING).read_text(encoding="utf-8"))["run_id"]
    histories = {name: client.get_metric_history(run_id, name) for name in client.get_run(run_id).data.metrics}
    return {
        name: sorted((point.step, None if name in SPEEDS else point.value) for point in history)
        for name, history in histories.items()
    }

"""What a run was made from and where it ran, for its record: the model, the data, Ray's job."""

import json
import os
from typing import Any

import ray

from qa_ray.config import Config
from qa_ray.data.pipeline import Split
from qa_ray.tracking.records import DataUse

_COLUMNS = {"id": "string", "context": "string", "question": "string", "answers": "string"}
# Set by Ray for a job that was submitted to a cluster.
_JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"


def tags(config: Config, train: Split, validation: Split) -> dict[str, str]:
    """What a run is found by: model, fingerprints of the data, Ray's job and, if it was submitted, its submission."""
    found = {
        "model.name": config.model.name,
        "model.revision": config.model.revision,
        "data.train.digest": train.digest,
        "data.validation.digest": validation.digest,
        "ray.job_id": ray.get_runtime_context().get_job_id(),
        "ray.submission_id": _submission_id(),
    }
    return {name: value for name, value in found.items() if value}


def data_uses(config: Config, train: Split, validation: Split) -> list[DataUse]:
    """The splits that a run reads."""
    hub = config.data.hub
    return [
        DataUse(
            name=f"{hub} {split.name}" if hub else os.path.basename(split.name.partition("?")[0].rstrip("/")),
            context=context,
            source=hub or split.name,
            on_hub=hub is not None,
            digest=split.digest,
            columns=_COLUMNS,
            profile={"num_questions": len(split), "num_rows_left_out": len(split.problems)},
        )
        for context, split in (("training", train), ("validation", validation))
    ]


def _submission_id() -> str | None:
    job: dict[str, Any] = json.loads(os.environ.get(_JOB_CONFIG) or "{}")
    return (job.get("metadata") or {}).get("job_submission_id")

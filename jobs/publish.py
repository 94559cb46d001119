"""Publish a run's model on the Hugging Face Hub.

python jobs/publish.py runs/squad --repo-id user/minilm-squad
python jobs/publish.py s3://bucket/runs/squad --repo-id user/minilm-squad --no-private --license apache-2.0 --tag v1
"""

import sys
from dataclasses import dataclass
from typing import Annotated

import tyro

from qa_ray.cli import run_job
from qa_ray.config.operation import PublishOptions
from qa_ray.publishing.publish import publish, run_at


@dataclass(frozen=True, kw_only=True)
class Options(PublishOptions):
    """Publish a run's model on the Hugging Face Hub, with a model card.

    The token comes from HF_TOKEN or from `hf auth login`, and needs write access.
    """

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """The run's folder: a path, or a URI such as s3://bucket/runs/NAME."""


if __name__ == "__main__":
    sys.exit(run_job(Options, lambda options: publish(run_at(options.run), options)))

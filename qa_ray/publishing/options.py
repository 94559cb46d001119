"""What the publishing job is asked for."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from qa_ray.config.operation import PublishOptions


@dataclass(frozen=True, kw_only=True)
class RunPublishOptions(PublishOptions):
    """Publish a run's model on the Hugging Face Hub, with a model card.

    The token comes from HF_TOKEN or from `hf auth login`, and needs write access.
    """

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """The run's folder: a path, or a URI such as s3://bucket/runs/NAME."""

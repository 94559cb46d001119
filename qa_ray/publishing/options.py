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
    trust_remote_code: bool = False
    """Runs Python code that comes with the model, which is opened before it goes out, and publishes it too. Only for
    models whose code you have read."""

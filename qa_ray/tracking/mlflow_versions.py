"""Registered models in MLflow, as those see them who use them: which version an alias names, and how it scored."""

import re
from typing import Any, NamedTuple

from qa_ray.model.folder import reading_mlflow

_ALIAS = re.compile(r"models:/(?P<name>[^/@]+)@(?P<alias>[^/@]+)")
_VERSION = re.compile(r"models:/(?P<name>[^/@]+)/(?P<version>\d+)")


class RegisteredVersion(NamedTuple):
    """A version of a registered model."""

    name: str
    version: str
    scores: dict[str, float]
    """What it was measured by, by metric; empty if nothing is recorded."""

    @property
    def uri(self) -> str:
        """The version's own URI, which always means the same."""
        return f"models:/{self.name}/{self.version}"


def is_alias(source: str) -> bool:
    """Whether a model is named by an alias, which may come to mean another version."""
    return _ALIAS.fullmatch(source) is not None


def find_version(source: str) -> RegisteredVersion | None:
    """The version that models:/NAME@ALIAS or models:/NAME/VERSION names; None for anything else.

    Raises:
        ModelError: MLflow has no such version, or cannot be reached.
    """
    named = _ALIAS.fullmatch(source) or _VERSION.fullmatch(source)
    if named is None:
        return None
    import mlflow  # here, since it costs seconds, and only models that MLflow keeps need it

    with reading_mlflow(f"find the model {source} at"):
        client = mlflow.MlflowClient()
        found = (
            client.get_model_version_by_alias(named["name"], named["alias"])
            if "alias" in named.groupdict()
            else client.get_model_version(named["name"], named["version"])
        )
    return RegisteredVersion(found.name, str(found.version), _scores(found.tags))


def _scores(tags: dict[str, Any]) -> dict[str, float]:
    try:
        return {tags["metric"]: float(tags["score"])}
    except (KeyError, ValueError):
        return {}

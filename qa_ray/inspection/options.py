"""What the inspection is asked for: a run, and where its page goes."""

import dataclasses
from dataclasses import dataclass

from qa_ray.config.fine_tuning import Config
from qa_ray.errors import require
from qa_ray.locations import is_local


@dataclass(frozen=True, kw_only=True, slots=True)
class InspectionConfig(Config):
    """A run whose data are looked at."""

    out: str = "inspection"
    """Folder on this machine that takes data.html, data.json and the rows that cannot be used."""

    def __post_init__(self) -> None:
        Config.__post_init__(self)
        require(is_local(self.out), f"--out={self.out} must be a folder on this machine, such as inspection")


def as_inspection(recipe: Config) -> InspectionConfig:
    """A recipe with the usual place for the page."""
    return InspectionConfig(**{item.name: getattr(recipe, item.name) for item in dataclasses.fields(Config)})

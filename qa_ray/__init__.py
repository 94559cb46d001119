"""Fine-tune, evaluate and serve extractive question-answering models on a Ray cluster."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qa_ray.answers import QuestionAnswerer
    from qa_ray.api import evaluate, predict, train, tune
    from qa_ray.config import recipes

__version__ = "0.1.0"
__all__ = ["QuestionAnswerer", "evaluate", "predict", "recipes", "train", "tune"]

_PLACES = {
    "QuestionAnswerer": "qa_ray.answers",
    "evaluate": "qa_ray.api",
    "predict": "qa_ray.api",
    "train": "qa_ray.api",
    "tune": "qa_ray.api",
    "recipes": "qa_ray.config",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for, and no more: the command line and data workers need neither Ray nor torch."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    place = importlib.import_module(_PLACES[name])
    return importlib.import_module(f"{_PLACES[name]}.{name}") if name == "recipes" else getattr(place, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

"""Questions that are given from Python: which of them a recipe needs, and which cannot stand together."""

from typing import Any

import pytest

from qa_ray.api import _configure
from qa_ray.config.data import DataConfig
from qa_ray.config.fine_tuning import Config
from qa_ray.errors import ConfigError

ROWS = [{"id": "a", "question": "q", "context": "c", "answers": []}]


def configured(tmp_path: Any, recipe: Any, train: Any, validation: Any, **data: Any) -> DataConfig:
    sections = {"data": data, "run": {"storage_path": str(tmp_path), "name": "mine"}}
    config: Config = _configure(recipe, train, validation, sections, lambda config: config)
    return config.data


def test_training_questions_alone_are_enough_with_a_share(tmp_path):
    data = configured(tmp_path, "bert_base_squad", ROWS, None, validation_share=0.2)
    assert (data.hub, data.validation_share) == (None, 0.2)
    assert data.train.startswith(f"{tmp_path}/data/")


def test_share_and_validation_questions_exclude_each_other(tmp_path):
    with pytest.raises(ConfigError, match=r"give validation_data or data\.validation_share, not both"):
        configured(tmp_path, "minilm", ROWS, ROWS, validation_share=0.2)


def test_recipe_with_data_on_the_hub_needs_both_splits_or_a_share(tmp_path):
    with pytest.raises(ConfigError, match="give both train_data and validation_data"):
        configured(tmp_path, "bert_base_squad", ROWS, None)
    assert configured(tmp_path, "bert_base_squad", None, None).hub == "rajpurkar/squad"

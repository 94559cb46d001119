import json

import pytest
from safetensors import SafetensorError
from small_runs import tiny_config

from qa_ray.errors import StorageError
from qa_ray.model.folder import SETTINGS, save_model
from qa_ray.model.loading import load_model, load_tokenizer


@pytest.fixture
def parts(bert):
    config = tiny_config(bert, window={"max_length": 48, "stride": 12}, evaluate={"n_best": 7, "max_answer_length": 9})
    return load_model(config.model), load_tokenizer(config.model), config


@pytest.mark.parametrize("threshold", [None, -1.5])
def test_answer_settings_stand_beside_the_weights(parts, tmp_path, threshold):
    save_model(tmp_path / "new" / "model", *parts, threshold)
    assert json.loads((tmp_path / "new" / "model" / SETTINGS).read_text()) == {
        "max_length": 48,
        "stride": 12,
        "n_best": 7,
        "max_answer_length": 9,
        "no_answer_threshold": threshold,
    }


def test_folder_that_cannot_be_made_is_named(parts, tmp_path):
    place = tmp_path / "file"
    place.touch()
    with pytest.raises(StorageError, match=f"the model cannot be saved in {place}: .*free space"):
        save_model(place, *parts, None)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("No space left on device")])
def test_full_disk_is_named(parts, tmp_path, monkeypatch, error):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr("safetensors.torch.save_file", fail)
    monkeypatch.setattr("transformers.modeling_utils.safe_save_file", fail)
    with pytest.raises(StorageError, match="No space left on device"):
        save_model(tmp_path, *parts, None)

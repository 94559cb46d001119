"""What the chaos benchmark trains: a small model on small data, and the command line for it."""

import json
from pathlib import Path

import torch
from transformers import AutoModelForQuestionAnswering, BertConfig, BertTokenizerFast

from qa_ray.locations import resolve

_SAMPLE = "package://qa_ray/data/sample/{}.json"
SETTINGS = {
    "model.dropout": "None",
    "window.max-length": 192,
    "window.stride": 64,
    "batch.size": 8,
    "optim.learning-rate": 1e-3,
    "train.log-every": 1,
    "train.precision": "fp32",
    "evaluate.max-tokens-per-device": 1024,
    "checkpoint.every-steps": 4,
    "checkpoint.keep": 3,
    "cluster.num-workers": 2,
    "cluster.cpus-per-worker": 1,
    "cluster.max-failures": -1,
}
"""Of every run, besides its inputs, its cluster and its place."""


def make_arguments(place: Path, *, address: str, runs: Path, epochs: int) -> list[str]:
    """Write model and data into `place`, and return the command line of a run on them, but for its name.

    Args:
        place: folder of the inputs.
        address: the cluster's.
        runs: folder of the runs.
        epochs: epochs of each run.
    """
    settings = SETTINGS | {"train.epochs": epochs, "cluster.address": address, "run.storage-path": runs}
    flags = [str(word) for name, value in settings.items() for word in (f"--{name}", value)]
    return ["minilm", *_make_inputs(place), *flags, "--evaluate.before-training", "--tracking.no-enabled"]


def _make_inputs(place: Path) -> list[str]:
    """Write a small model with random weights and small data; returns the command line's part that names them."""
    texts = [_write_questions(place, name, paragraphs) for name, paragraphs in (("train", 4), ("validation", 12))]
    tokenizer = BertTokenizerFast().train_new_from_iterator([" ".join(texts)], 1000)
    tokenizer.save_pretrained(place / "model")
    # Large enough that writing and storing a checkpoint take some time.
    shape = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=1024,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    AutoModelForQuestionAnswering.from_config(shape).save_pretrained(place / "model")
    named = {"model.name": "model", "data.train": "train.json", "data.validation": "validation.json"}
    flags = [word for name, file in named.items() for word in (f"--{name}", str(place / file))]
    return [*flags, "--data.hub", "None"]


def _write_questions(place: Path, name: str, paragraphs: int) -> str:
    """Take as many paragraphs of each theme of the sample, and return their text."""
    whole = json.loads(Path(resolve(_SAMPLE.format(name))).read_text(encoding="utf-8"))
    data = [theme | {"paragraphs": theme["paragraphs"][:paragraphs]} for theme in whole["data"]]
    text = json.dumps(whole | {"data": data})
    (place / f"{name}.json").write_text(text, encoding="utf-8")
    return " ".join(paragraph["context"] for theme in data for paragraph in theme["paragraphs"])

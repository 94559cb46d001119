"""A small training job for tests on Ray: questions about trips, a tiny model, and a run's files read back."""

import contextlib
import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import ray
from families import FAMILIES
from safetensors.torch import load_file

from qa_ray.config.data import DataConfig
from qa_ray.config.fine_tuning import (
    BatchConfig,
    Config,
    EvalConfig,
    ModelConfig,
    OptimConfig,
    TrainConfig,
    WindowConfig,
)
from qa_ray.config.operation import ClusterConfig, RunConfig, TrackingConfig
from qa_ray.config.policies import Precision

NAMES = ["Ada", "Bo", "Cem", "Dora", "Emil", "Fay", "Gus", "Hana", "Ivo", "Jun"]
TOWNS = ["Rome", "Oslo", "Lima", "Bern", "Kyiv"]
EVERY_STEP: dict[str, dict[str, object]] = {
    "checkpoint": {"every_steps": 1},
    "evaluate": {"per_epoch": 2},
    "tracking": {"enabled": False},
}
SPEEDS = (
    "time",
    "windows_per_second",
    "tokens_per_second",
    "peak_memory_gb",
    "peak_gpu_memory_gb",
    "checkpoint_stall_seconds",
)


def questions(names: list[str]) -> list[dict[str, object]]:
    """Two answerable questions and one unanswerable about each name."""
    rows = []
    for number, name in enumerate(names):
        town = TOWNS[number % len(TOWNS)]
        context = f"Once upon a time {name} went to {town} by train, and came home late at night."
        for question, text in ((f"Where did {name} go?", town), (f"Who went to {town}?", name)):
            rows.append({"context": context, "question": question, "text": text})
        rows.append({"context": context, "question": f"What did {name} eat?", "text": None})
    return rows


def write_squad(path: Path, names: list[str]) -> Path:
    """Write the questions about `names` as nested SQuAD JSON."""
    paragraphs = []
    for number, row in enumerate(questions(names)):
        answers = []
        if row["text"]:
            answers = [{"text": row["text"], "answer_start": str(row["context"]).index(str(row["text"]))}]
        qa = {"id": f"{path.stem}-{number}", "question": row["question"], "answers": answers}
        paragraphs.append({"context": row["context"], "qas": [qa | {"is_impossible": not answers}]})
    path.write_text(json.dumps({"version": "v2.0", "data": [{"title": "trips", "paragraphs": paragraphs}]}))
    return path


def prepare(place: Path) -> Path:
    """Put the tiny model, 21 training and 9 validation questions into `place`."""
    FAMILIES["bert"].save(place / "tiny")
    write_squad(place / "train.json", NAMES[:7])
    write_squad(place / "validation.json", NAMES[7:])
    return place


def small_config(place: Path, name: str, **sections: dict[str, object]) -> Config:
    """A run on what `prepare` made; `sections` replace single fields."""
    config = Config(
        model=ModelConfig(name=str(place / "tiny")),
        data=DataConfig(train=str(place / "train.json"), validation=str(place / "validation.json")),
        window=WindowConfig(max_length=128, stride=8),
        # 21 windows in batches of 4: the last batch holds one window, fewer than there are workers.
        batch=BatchConfig(size=4),
        optim=OptimConfig(learning_rate=1e-3),
        train=TrainConfig(epochs=3, log_every=1, precision=Precision.FP32),
        evaluate=EvalConfig(before_training=True),
        cluster=ClusterConfig(num_workers=2, cpus_per_worker=1),
        run=RunConfig(name=name, storage_path=str(place / "runs")),
        tracking=TrackingConfig(uri=f"sqlite:///{place}/mlflow.db"),
    )
    changes = {key: dataclasses.replace(getattr(config, key), **value) for key, value in sections.items()}
    return dataclasses.replace(config, **changes)


def metrics_of(run: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def steps_before(run: Path, when: float) -> list[int]:
    """The steps that were trained before a time, in seconds since 1970, and not again after it."""
    return [line["step"] for line in metrics_of(run) if line["phase"] == "train" and line["time"] < when]


def training_workers() -> list[psutil.Process]:
    """The training workers of this process's cluster."""
    return processes("RayTrainWo")


def processes(title: str) -> list[psutil.Process]:
    """Processes whose title, cut by the system, has a text in it: of this process's cluster, and of no other here."""
    session = ray._private.worker.global_worker.node.get_session_dir_path()
    found = []
    for process in psutil.process_iter(["name"]):
        with contextlib.suppress(psutil.Error):
            parent = process.parent() if title in process.info["name"] else None
            found += [process] if parent and session in " ".join(parent.cmdline()) else []
    return found


def outcome_of(run: Path) -> dict[str, Any]:
    """All that must be the same in two runs of one configuration: weights, metrics, predictions and ledger."""
    weights = load_file(run / "model" / "model.safetensors")
    lines = [{name: value for name, value in line.items() if name not in SPEEDS} for line in metrics_of(run)]
    return {
        "weights": {name: tensor.numpy().tobytes() for name, tensor in weights.items()},
        "metrics": lines,
        "predictions": (run / "evaluation" / "predictions.json").read_text(),
        "ledger": json.loads((run / "result.json").read_text())["ledger"],
    }


def command(place: Path, name: str, changes: Mapping[str, object] | None = None) -> list[str]:
    """The command line of the same run, with a checkpoint after every step.

    `changes` replaces options by their name on the command line; a list is several words.
    """
    options: dict[str, object] = {
        "model.name": place / "tiny",
        "model.attention": None,
        "model.dropout": None,
        "data.hub": None,
        "data.train": place / "train.json",
        "data.validation": place / "validation.json",
        "window.max-length": 128,
        "window.stride": 8,
        "batch.size": 4,
        "batch.max-tokens-per-device": None,
        "optim.learning-rate": 1e-3,
        "optim.weight-decay": 0.01,
        "optim.warmup-ratio": 0.1,
        "train.epochs": 3,
        "train.log-every": 1,
        "train.precision": "fp32",
        "evaluate.max-tokens-per-device": 16_384,
        "checkpoint.every-steps": 1,
        "cluster.local-cpus": 2,
        "cluster.num-workers": 2,
        "cluster.cpus-per-worker": 1,
        "run.name": name,
        "run.storage-path": place / "runs",
    }
    options |= changes or {}
    words = {name: value if isinstance(value, list) else [value] for name, value in options.items()}
    flags = [str(word) for name, values in words.items() for word in (f"--{name}", *values)]
    script = Path(__file__).parents[1] / "jobs" / "train.py"
    return [sys.executable, str(script), "minilm", *flags, "--evaluate.before-training", "--tracking.no-enabled"]

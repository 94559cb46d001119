"""The model card tells what the run has recorded, for people and as metadata."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from finished_run import change, finished_run
from huggingface_hub import EvalResultEntry, ModelCard, eval_result_entries_to_yaml
from pyarrow.fs import LocalFileSystem

from qa_ray.publishing.model_card import benchmark_entry, make_card
from qa_ray.publishing.run_record import RunRecord
from qa_ray.storage.run_folder import CHECKPOINTS, ENVIRONMENT, EVALUATION, INTERVALS, METRICS, MODEL, RunFolder


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    return RunRecord.read(finished_run(tmp_path_factory.mktemp("plain")))


@pytest.fixture(scope="module")
def abstaining(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    return RunRecord.read(finished_run(tmp_path_factory.mktemp("abstaining"), unanswerable=3))


def card_of(record: RunRecord, license: str | None = None) -> ModelCard:
    return make_card(record, "me/tiny", revision=None, license=license, context_first=False)


def with_config(tmp_path: Path, section: str, **fields: Any) -> RunRecord:
    run = finished_run(tmp_path)
    config = json.loads(run.read("config.json") or b"")
    change(run, "config.json", **{section: config[section] | fields})
    return RunRecord.read(run)


def test_scores_stand_with_intervals_around_them_and_those_before(plain: RunRecord) -> None:
    text = card_of(plain).text
    assert "On 4 questions of `dev.json`, in percent." in text
    assert "| score | value | 95% interval | before fine-tuning |" in text
    assert "| Exact match | 50.00 | 45.00 to 55.00 | 1.50 |" in text
    assert "nanswerable" not in text
    assert "holds none" not in text


def test_rule_by_which_texts_are_compared_is_named(plain: RunRecord, tmp_path: Path) -> None:
    assert "Texts are compared by SQuAD's definition." in card_of(plain).text
    chinese = with_config(tmp_path, "evaluate", language="zh")
    assert "Texts are compared by MLQA's rule for zh." in card_of(chinese).text
    assert "| `evaluate.language` | `zh` |" in card_of(chinese).text


def test_answerable_and_unanswerable_questions_have_scores_of_their_own(abstaining: RunRecord) -> None:
    text = card_of(abstaining).text
    for label in ("Exact match, answerable questions", "F1, unanswerable questions", "F1 at its own best threshold"):
        assert f"| {label} |" in text
    assert f"by more than {abstaining.metrics['threshold']:g}" in text
    assert "or that the context holds none" in text


def test_run_without_intervals_has_a_table_without_them(plain: RunRecord) -> None:
    text = card_of(dataclasses.replace(plain, intervals={})).text
    assert "interval" not in text
    assert "| Exact match | 50.00 | 1.50 |" in text


def test_score_without_an_interval_has_an_empty_cell(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    change(run, INTERVALS, exact_match={"mean": 50.0, "low": None, "high": None})
    text = card_of(RunRecord.read(run)).text
    assert "| Exact match | 50.00 |  | 1.50 |" in text
    assert re.search(r"\| F1 \| [\d.]+ \| [\d.]+ to [\d.]+ \|", text)


def test_metrics_before_the_first_step_are_those_that_were_finite(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    store = f"{CHECKPOINTS}/step-00000004"
    for name in (MODEL, EVALUATION):
        run.copy(LocalFileSystem(), str(tmp_path / "first" / name), f"{store}/{name}")
    line = {"time": 1.0, "phase": "evaluate", "step": 0, "eval_f1": 3.25, "eval_loss": None}
    run.write(METRICS, json.dumps(line).encode())
    assert RunRecord.read(run, 4).before == {"eval_f1": 3.25}


def test_metadata_holds_scores_and_no_path_of_this_machine(plain: RunRecord, tmp_path: Path) -> None:
    card = card_of(plain, license="apache-2.0")
    data = card.data.to_dict()
    assert data["license"] == "apache-2.0"
    assert (data["pipeline_tag"], data["library_name"]) == ("question-answering", "transformers")
    assert not {"base_model", "datasets", "language"} & data.keys()
    [model] = data["model-index"]
    [result] = model["results"]
    assert result["dataset"] == {"name": "dev.json", "type": "dev.json"}
    assert {metric["type"]: metric["value"] for metric in result["metrics"]} == {
        "exact_match": 50,
        "f1": round(plain.metrics["f1"], 4),
    }
    assert "/tmp" not in card.content
    assert str(Path(plain.config["data"]["validation"]).parent) not in card.content
    assert "`s3://bucket/train.json`" in card.text


def test_hub_model_and_data_set_are_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = with_config(tmp_path, "model", name="google-bert/bert-base-cased")
    squad = {"hub": "rajpurkar/squad", "validation": "validation", "revision": "abc"}
    record.config["data"].update(squad)
    data = card_of(record).data.to_dict()
    assert (data["base_model"], data["datasets"]) == ("google-bert/bert-base-cased", "rajpurkar/squad")
    [result] = data["model-index"][0]["results"]
    assert result["dataset"] == {
        "name": "rajpurkar/squad",
        "type": "rajpurkar/squad",
        "split": "validation",
        "revision": "abc",
    }
    entry = EvalResultEntry(
        dataset_id="rajpurkar/squad",
        task_id="squad",
        value=round(record.metrics["f1"], 4),
        dataset_revision="abc",
        notes="F1 in percent; exact match 50.00",
    )
    assert yaml.safe_load(benchmark_entry(record, "squad")) == eval_result_entries_to_yaml([entry])


def test_share_of_the_training_questions_is_told_as_one(tmp_path: Path) -> None:
    card = card_of(with_config(tmp_path, "data", validation_share=0.125))
    place = "`s3://bucket/train.json`"
    assert f"questions of {place}, 12.5% of its contexts, in percent" in card.text
    assert f"{place}, 87.5% of its contexts" in card.text
    assert "dev.json" not in card.text
    [result] = card.data.to_dict()["model-index"][0]["results"]
    assert result["dataset"]["name"] == "s3://bucket/train.json"


def test_settings_are_told_and_what_changes_no_result_is_not(plain: RunRecord) -> None:
    text = card_of(plain).text
    for line in ("| `optim.learning_rate` | `0.001` |", "| `window.stride` | `8` |", "| `train.seed` | `42` |"):
        assert line in text
    for name in ("tracking.", "cluster.", "run.", "checkpoint.", "train.max_steps"):
        assert f"`{name}" not in text


def test_versions_and_hardware_are_told_where_they_were_recorded(plain: RunRecord, tmp_path: Path) -> None:
    assert f"saved by transformers {plain.architecture['transformers_version']}" in card_of(plain).text
    assert "It was made with" not in card_of(plain).text
    run = finished_run(tmp_path)
    run.write(ENVIRONMENT, json.dumps({"gpu": "2 x A|100"}).encode())
    assert (
        "It was made with:\n\n| what | which |\n| --- | --- |\n| `gpu` | 2 x A\\|100 |"
        in card_of(RunRecord.read(run)).text
    )


def test_hardware_is_that_of_the_workers_by_kind(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    node = {"cpu": "AMD EPYC 7R32", "cpu_cores": "48", "memory_gb": "192", "precision": "bf16"}
    kinds = [
        {"workers": 8, "nodes": 2, "gpu": "NVIDIA A10G", **node},
        {"workers": 1, "nodes": 1, "gpu": "NVIDIA A100", **node},
    ]
    run.write(ENVIRONMENT, json.dumps({"python": "3.12.0", "workers": kinds}).encode())
    assert (
        "| `workers` | 8 x NVIDIA A10G on 2 nodes, each with 48 cores of AMD EPYC 7R32 and 192 GB, in bf16; "
        "1 x NVIDIA A100 on 1 node with 48 cores of AMD EPYC 7R32 and 192 GB, in bf16 |"
    ) in card_of(RunRecord.read(run)).text


def test_licence_is_stated_only_where_it_is_given(plain: RunRecord) -> None:
    assert "No licence has been stated" in card_of(plain).text
    assert "license" not in card_of(plain).data.to_dict()
    assert "Licence: `mit`." in card_of(plain, license="mit").text


def test_run_of_another_version_of_qa_ray_is_read(tmp_path: Path) -> None:
    record = with_config(tmp_path, "data", novelty=1)
    assert "| `data.novelty` | `1` |" in card_of(record).text


def test_record_reads_a_folder_on_any_storage(plain: RunRecord, tmp_path: Path) -> None:
    finished_run(tmp_path)
    assert RunRecord.read(RunFolder(tmp_path.as_uri(), "first")).metrics == plain.metrics

"""The report of a sweep is there, and up to date, while its trials go on."""

import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from qa_ray.config.operation import RunConfig
from qa_ray.storage.run_folder import RunFolder
from qa_ray.tuning import live_report
from qa_ray.tuning.live_report import LiveReport
from qa_ray.tuning.options import SamplerKind, SweepConfig, TuneConfig
from qa_ray.tuning.study import Study
from qa_ray.tuning.trials import Status


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.setattr(live_report, "_SECONDS_BETWEEN_LOOKS", 0.001)
    run = RunConfig(name="sweep", storage_path=str(tmp_path))
    tune = TuneConfig(sampler=SamplerKind.RANDOM, num_trials=3)
    return Study(SweepConfig(run=run, tune=tune, space=("window.stride=choice(8, 16, 32)",)))


def wait_until(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.001)


def test_page_is_written_whenever_a_trial_has_ended(study: Study, tmp_path: Path) -> None:
    page = tmp_path / "sweep" / "report.html"
    with LiveReport(study):
        for number, score in enumerate((41.25, 52.75)):
            study.next_trial(lambda point: None)
            study.evaluated(number, {1: {"eval_f1": score, "eval_exact_match": score}}, None)
            study.ended(number, Status.FINISHED)
            wait_until(lambda score=score: page.is_file() and str(score) in page.read_text())
        page.unlink()
    assert not page.exists(), "the sweep's end writes it"


def test_page_that_cannot_be_written_is_told_once_and_tried_again(
    study: Study, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, part = tmp_path / "sweep" / "report.html", tmp_path / "sweep" / "report.html.part"
    part.mkdir(parents=True)
    tried: list[str] = []
    write = RunFolder.write

    def count(folder: RunFolder, name: str, content: bytes) -> None:
        tried.append(name)
        write(folder, name, content)

    monkeypatch.setattr(RunFolder, "write", count)
    study.next_trial(lambda point: None)
    study.ended(0, Status.FAILED, "no reason")
    with caplog.at_level(logging.WARNING, "qa_ray"), LiveReport(study):
        wait_until(lambda: tried.count("report.html") >= 3)
        shutil.rmtree(part)
        wait_until(page.is_file)
    [said] = caplog.messages
    assert said.startswith("report.html is not written; the sweep goes on, and tries again: ")

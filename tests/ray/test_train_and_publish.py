"""Training that publishes: the model is on the Hub when the job ends, or the same command brings it there later."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub import connected_hub
from hub_state import WRITER, Hub
from ray_runs import prepare, small_config

from qa_ray.cli.commands import fine_tune
from qa_ray.cli.execution import exit_code

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("ray_cluster")]

ID = "somebody/trips"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with connected_hub(monkeypatch) as server:
        yield server


def test_job_publishes_what_it_has_trained_or_says_how_to_do_it_later(
    hub: Hub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    place = prepare(tmp_path)
    config = small_config(
        place, "shared", train={"max_steps": 2}, tracking={"enabled": False}, publish={"repo_id": ID, "tag": "v1"}
    )
    run = place / "runs" / "shared"
    monkeypatch.delenv("HF_TOKEN")
    assert exit_code(lambda: print(fine_tune(config))) == 1
    out, err = capsys.readouterr()
    assert "there is no token for the Hub" in caplog.text
    assert f"model   {run}/model" in out
    assert f"The model stays in {run}; publish it later with: qa-ray publish '{run}' --repo-id {ID}" in err
    monkeypatch.setenv("HF_TOKEN", WRITER)
    assert exit_code(lambda: print(fine_tune(config))) == 0
    out, _ = capsys.readouterr()
    assert "nothing was trained" in out
    assert out.endswith(f"\npublished {hub.endpoint}/{ID}/commit/{hub.repos[ID].tags['v1']}\n")
    published = hub.repos[ID].branches["main"][-1].files
    assert published["model.safetensors"] == (run / "model" / "model.safetensors").read_bytes()
    assert json.loads((run / "environment.json").read_text())["ray"] in published["README.md"].decode()
    assert WRITER not in "".join(path.read_text(errors="replace") for path in run.rglob("*") if path.is_file())

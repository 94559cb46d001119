"""Publishing a run's model: what is staged, checked and pushed to a Hub of our own."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from finished_run import change, finished_run
from hub import connected_hub
from hub_state import READER, WRITER, Hub
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

from qa_ray.cli.console import main
from qa_ray.config.operation import PublishConfig, PublishOptions
from qa_ray.errors import ConfigError, PublishError
from qa_ray.publishing.publish import publish, run_at
from qa_ray.storage.run_folder import RunFolder

ID = "somebody/tiny"
TO_TINY = PublishOptions(repo_id=ID)
MODEL_FILES = {
    "README.md",
    "config.json",
    "model.safetensors",
    "qa_ray.json",
    "tokenizer.json",
    "tokenizer_config.json",
}
ROOT = Path(__file__).parents[3]
ASKED = ("Who built the bridge?", "The king built the bridge.")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with connected_hub(monkeypatch) as server:
        yield server


@pytest.fixture(scope="module")
def pattern(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    finished_run(folder)
    return folder / "first"


@pytest.fixture
def run(tmp_path: Path, pattern: Path) -> RunFolder:
    shutil.copytree(pattern, tmp_path / "first")
    return RunFolder(str(tmp_path), "first")


def files(hub: Hub, repo_id: str = ID, revision: str = "main") -> dict[str, bytes]:
    commit = hub.repos[repo_id].at(revision)
    assert commit is not None
    return {name: content for name, content in commit.files.items() if name != ".gitattributes"}


def refusal(run: RunFolder, options: PublishOptions = TO_TINY) -> str:
    """The message of the error that publishing ends with: one line, and how to go on."""
    with pytest.raises(PublishError) as caught:
        publish(run, options)
    message = str(caught.value)
    assert "\n" not in message
    command = f"qa-ray publish '{run.uri}' --repo-id {options.repo_id}"
    assert message.endswith(f"The model stays in {run.uri}; publish it later with: {command}")
    return message


OPEN_FROM_HUB = """
import pathlib, re, sys
import torch
from transformers import AutoModelForQuestionAnswering, AutoTokenizer
folder = pathlib.Path(sys.argv[1])
for repo_id in sys.argv[4:]:
    tokenizer = AutoTokenizer.from_pretrained(repo_id)
    model = AutoModelForQuestionAnswering.from_pretrained(repo_id)
    outputs = model(**tokenizer(sys.argv[2], sys.argv[3], return_tensors="pt"))
    torch.save([outputs.start_logits, outputs.end_logits], folder / repo_id.replace("/", "-"))
    card = (folder / repo_id.replace("/", "-")).with_suffix(".md").read_text()
    for block in re.findall("```python\\n(.*?)```", card, re.DOTALL):
        exec(block)
"""


def test_published_models_open_from_the_hub_with_the_same_logits_and_their_cards_code_runs(
    hub: Hub, tmp_path: Path
) -> None:
    families = {"somebody/bert": "bert", "somebody/xlnet": "xlnet"}  # question first, context first
    for repo_id, family in families.items():
        publish(finished_run(tmp_path / family, family=family), PublishOptions(repo_id=repo_id))
        (tmp_path / repo_id.replace("/", "-")).with_suffix(".md").write_bytes(files(hub, repo_id)["README.md"])
    reader = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": READER, "HF_HOME": str(tmp_path / "home")}
    switches = {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", OPEN_FROM_HUB, str(tmp_path), *ASKED, *families]
    opened = subprocess.run(command, env=os.environ | reader | switches, capture_output=True, text=True)
    assert opened.returncode == 0, opened.stderr
    lines = opened.stdout.splitlines()
    asked_first = {repo_id: b"tokenizer(question, context," in files(hub, repo_id)["README.md"] for repo_id in families}
    assert asked_first == {"somebody/bert": True, "somebody/xlnet": False}
    # Without windows to cut, both ways of the card find the same answer.
    for with_qa_ray, with_transformers in (lines[:2], lines[2:]):
        assert f"'answer': {with_transformers!r}" in with_qa_ray
    for repo_id, family in families.items():
        own = tmp_path / family / "first" / "model"
        inputs = AutoTokenizer.from_pretrained(own)(*ASKED, return_tensors="pt")
        outputs = AutoModelForQuestionAnswering.from_pretrained(own)(**inputs)
        for ours, theirs in zip(
            (outputs.start_logits, outputs.end_logits), torch.load(tmp_path / repo_id.replace("/", "-")), strict=True
        ):
            assert torch.equal(ours, theirs)


def test_model_and_card_are_pushed_and_nothing_else_that_lies_there(hub: Hub, run: RunFolder, tmp_path: Path) -> None:
    for name in ("optimizer.pt", "pytorch_model.bin", ".env", ".hidden.json", "notes.md", "modeling.py"):
        (tmp_path / "first" / "model" / name).write_text("x")
    publish(run, TO_TINY)
    found = files(hub)
    assert found.keys() == MODEL_FILES
    for name in MODEL_FILES - {"README.md"}:
        assert found[name] == (tmp_path / "first" / "model" / name).read_bytes()
    assert hub.repos[ID].private


def test_branch_tag_and_the_runs_name_are_used(hub: Hub, run: RunFolder) -> None:
    publish(run, PublishOptions(private=False, revision="trial", tag="v1"))
    repo = hub.repos["somebody/first"]
    assert not repo.private
    assert repo.tags == {"v1": repo.branches["trial"][-1].oid}
    assert repo.branches["trial"][-1].message == "Model of the run first, step 8"
    assert b'revision="trial"' in files(hub, "somebody/first", "v1")["README.md"]


def test_without_a_token_nothing_is_asked(hub: Hub, run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert "there is no token for the Hub: set HF_TOKEN in the environment, or run `hf auth login`" in refusal(run)
    assert not hub.requests


def test_refusal_of_the_hub_says_how_to_go_on(hub: Hub, run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", READER)
    assert "the token may not write there (403)" in refusal(run)
    monkeypatch.setenv("HF_TOKEN", WRITER)
    publish(run, TO_TINY)


def test_unknown_licence_is_refused_before_anything_is_made(hub: Hub, run: RunFolder) -> None:
    assert "refuses the model card; look at --license" in refusal(run, PublishOptions(repo_id=ID, license="nonsense"))
    assert not hub.repos


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        (
            "config.json",
            {"tracking": {"uri": "https://me:pw@mlflow.org"}},
            "config.json: tracking.uri holds a password",
        ),
        ("config.json", {"note": "hf_abcdefghijklmnopqrstuvwx"}, "config.json: note holds a password or a key"),
        ("model/config.json", {"from": [{"url": "s3://b?secret_key=1"}]}, "config.json: from.url holds a password"),
        ("model/tokenizer_config.json", {"token": WRITER}, "tokenizer_config.json holds a token"),
        ("model/qa_ray.json", {"token": "my own"}, "qa_ray.json holds a token"),
    ],
)
def test_secret_in_the_run_is_not_published(
    hub: Hub, run: RunFolder, name: str, fields: dict[str, object], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "qa_ray" in name:
        monkeypatch.setenv("HF_TOKEN", "my own")  # of another form than the Hub's tokens have today
    change(run, name, **fields)
    told = refusal(run)
    assert message in told
    assert not any(str(value) in told for value in fields.values())
    assert not hub.repos


def test_damaged_copy_is_not_published(hub: Hub, run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def damage(source: Path, target: Path) -> None:
        content = bytearray(source.read_bytes())
        if target.suffix == ".safetensors":
            content[-4:] = b"\0\0\x80?"
        target.write_bytes(content)

    monkeypatch.setattr(shutil, "copyfile", damage)
    assert "the staged model gives other logits than the run's own" in refusal(run)
    assert not hub.requests


def test_model_that_does_not_open_is_not_published(hub: Hub, run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "first" / "model" / "model.safetensors").write_bytes(b"")
    assert "the model cannot be opened again" in refusal(run)
    assert not hub.requests


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("result.json", "is not finished: it has no result.json"),
        ("config.json", "holds no config.json"),
        ("model/qa_ray.json", "holds no model/qa_ray.json"),
    ],
)
def test_run_without_its_files_is_refused(hub: Hub, run: RunFolder, tmp_path: Path, missing: str, message: str) -> None:
    (tmp_path / "first" / missing).unlink()
    assert message in refusal(run)


def test_benchmark_result_needs_a_whole_split_of_a_hub_data_set(hub: Hub, run: RunFolder) -> None:
    assert "--benchmark-task is for a model" in refusal(run, PublishOptions(repo_id=ID, benchmark_task="squad"))


@pytest.mark.parametrize("options", [{"repo_id": "a/b/c"}, {"repo_id": "me/.x"}, {"tag": "a b"}, {"revision": ".."}])
@pytest.mark.parametrize(("kind", "prefix"), [(PublishOptions, "--"), (PublishConfig, "--publish.")])
def test_name_that_cannot_be_is_refused(kind: type[PublishOptions], prefix: str, options: dict[str, str]) -> None:
    (field,) = options
    with pytest.raises(ConfigError, match=f"^{prefix}{field.replace('_', '-')}="):
        kind(**options)


def test_option_of_a_run_that_is_not_published_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--publish\.tag, --publish\.each-best needs --publish\.repo-id"):
        PublishConfig(tag="v1", each_best=True)


def test_run_whose_name_cannot_name_a_repository_needs_one(hub: Hub, pattern: Path, tmp_path: Path) -> None:
    shutil.copytree(pattern, tmp_path / "with space")
    with pytest.raises(ConfigError, match=r"--repo-id is not given, .*'with space' cannot name a repository"):
        publish(RunFolder(str(tmp_path), "with space"), PublishOptions())


def test_run_on_s3_is_published_and_its_local_copies_are_deleted(
    hub: Hub, run: RunFolder, s3_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = RunFolder(s3_folder, "on s3")
    remote.copy(*run.filesystem(), "")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    assert run_at(remote.uri) == remote
    publish(run_at(remote.uri), TO_TINY)
    assert files(hub).keys() == MODEL_FILES
    assert not list((tmp_path / "tmp").iterdir())


def test_run_of_a_file_uri_keeps_its_model(hub: Hub, run: RunFolder, tmp_path: Path) -> None:
    publish(run_at((tmp_path / "first").as_uri()), TO_TINY)
    assert (tmp_path / "first" / "model" / "model.safetensors").is_file()


def test_run_that_is_not_there_and_location_with_a_secret_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PublishError, match="there is no run"):
        run_at(str(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match="holds a password"):
        run_at("s3://key:secret@bucket/runs/first")


def test_job_publishes_the_run_it_is_given(
    hub: Hub, run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["publish", "first/", "--repo-id", ID, "--no-private", "--license", "apache-2.0", "--tag", "v1"]
    assert main(arguments) == 0
    assert capsys.readouterr().out == f"{hub.endpoint}/{ID}/commit/{hub.repos[ID].tags['v1']}\n"
    assert b"license: apache-2.0" in files(hub)["README.md"]
    assert json.loads(files(hub)["qa_ray.json"])["max_length"] == 32

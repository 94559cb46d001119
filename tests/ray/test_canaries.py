"""Secrets are planted wherever one can come from, jobs are run, and nothing that they leave holds one of them."""

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from hub import hub_server
from hub_state import READER, WRITER, Hub
from mlflow_login import login
from mlflow_server import MlflowServer
from ray_runs import prepare, small_config

from qa_ray.config.files import to_toml

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
CONTROL = "c0ntr0l"
"""No secret: the experiment's name, which must be found where canaries are looked for."""
USER, PASSWORD = "c4n4ry-user", "c4n4ry-$pass&word"
URL_USER, URL_PASSWORD = "c4n4ry-url-user", "c4n4ry-url-password"
WRONG = "c4n4ry-wrong"
FILE_TOKEN = "hf_c4n4ryfilec4n4ryfile"
ENVIRONMENT = {
    "HF_TOKEN": WRITER,
    "MLFLOW_TRACKING_USERNAME": USER,
    "MLFLOW_TRACKING_PASSWORD": PASSWORD,
    "AWS_ACCESS_KEY_ID": "AKIAC4N4RYC4N4RYC4N4",
    "AWS_SECRET_ACCESS_KEY": "c4n4ry/secret+access=key",
    "AWS_SESSION_TOKEN": "c4n4ry-session-token",
    "RAY_AUTH_TOKEN": "c4a4ac4a4ac4a4ac4a4ac4a4ac4a4a00",
    "SOME_API_KEY": "c4n4ry 'some' \"api\" key",
}
NETRC = "c4n4ry-netrc"
IN_WORDS = ["c4n4ry-pwd", "c4n4rytokenasuser", "c4n4ry-code", "c4n4ry-key"]
CANARIES = [*ENVIRONMENT.values(), URL_USER, URL_PASSWORD, WRONG, FILE_TOKEN, READER, NETRC, *IN_WORDS]


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def spellings() -> dict[bytes, str]:
    """How each secret may be written: as it is, in an address, in JSON, and as a login."""
    found = {}
    for canary in CANARIES:
        for text in (canary, quote(canary, safe=""), json.dumps(canary)[1:-1], repr(canary)[1:-1]):
            found[text.encode()] = canary
    for user, password in ((USER, PASSWORD), (URL_USER, URL_PASSWORD), (USER, WRONG), ("me", NETRC)):
        found[basic(user, password).removeprefix("Basic ").rstrip("=").encode()] = f"login of {user}"
    return found


def secrets_in(content: bytes) -> set[str]:
    return {canary for spelling, canary in spellings().items() if spelling in content}


@pytest.fixture
def hub() -> Iterator[Hub]:
    with hub_server() as hub:
        yield hub


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    """Where Ray keeps its session; the paths of its sockets must be short."""
    folder = Path(tempfile.mkdtemp(prefix="qr", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def steps(place: Path, hub: Hub, mlflow: str, bucket: str) -> list[tuple[list[str], dict[str, str | None], int]]:
    """Command lines, what differs in their environment, and how they end."""
    mine, run = str(place / "mine.toml"), str(place / "runs" / "first")
    addressed = mlflow.replace("http://", f"http://{URL_USER}:{URL_PASSWORD}@")
    by_netrc = mlflow.replace("127.0.0.1", "localhost")
    no_login: dict[str, str | None] = {"MLFLOW_TRACKING_USERNAME": None, "MLFLOW_TRACKING_PASSWORD": None}
    publish = ["publish", run, "--repo-id", "somebody/other"]
    missing = bucket.replace("//bucket", "//missing/runs")
    return [
        (["train", mine, "--run.name", "first", "--publish.repo-id", "somebody/trips"], {}, 0),
        (["train", mine, "--run.name", "addressed"], {**no_login, "MLFLOW_TRACKING_URI": addressed}, 0),
        (
            ["tune", mine, "--run.name", "sweep", "--space", "window.stride=choice(8, 16)", "--tune.num-trials", "2"],
            {},
            0,
        ),
        (
            ["predict", run, "--data", str(place / "validation.json"), "--out", bucket.replace("bucket", "bucket/out")],
            {},
            0,
        ),
        (["doctor", mine, "--run.name", "planned", "--publish.repo-id", "somebody/trips"], {}, 0),
        (["doctor", mine, "--run.name", "planned"], {**no_login, "MLFLOW_TRACKING_URI": by_netrc}, 0),
        (["ask", "models:/gone@champion", "Who?", "--text", "Ada."], {**no_login, "MLFLOW_TRACKING_URI": addressed}, 1),
        # Who refuses them.
        (publish, {"HF_TOKEN": READER}, 1),
        (publish, {"HF_TOKEN": None}, 1),
        (["train", mine, "--run.name", "refused"], {"MLFLOW_TRACKING_PASSWORD": WRONG}, 1),
        (["doctor", mine, "--run.name", "refused"], {"MLFLOW_TRACKING_PASSWORD": WRONG}, 1),
        (["train", mine, "--run.name", "refused", "--run.storage-path", missing], {}, 1),
        # What must not be in a configuration at all.
        (["train", mine, "--tracking.uri", "http://c4n4rytokenasuser@mlflow"], {}, 2),
        (["train", mine, "--run.storage-path", "s3://bucket/runs?secret_key=c4n4ry-key"], {}, 2),
        (["train", mine, "--data.train", "https://host/train.json?code=c4n4ry-code"], {}, 2),
        (["tune", mine, "--tracking.experiment", "https://host/?pwd=c4n4ry-pwd"], {}, 2),
        (["predict", run, "--data", "https://host/d.json?pwd=c4n4ry-pwd"], {}, 2),
        (["evaluate", run, "--data", "d.json", "--against", "https://c4n4rytokenasuser@host/model"], {}, 2),
        (["publish", "s3://bucket/runs/first?secret_key=c4n4ry-key"], {}, 1),
    ]


def test_no_planted_secret_is_found_in_anything_that_jobs_leave(
    hub: Hub, s3: str, ray_folder: Path, tmp_path: Path
) -> None:
    place, home, dump, served = (tmp_path / name for name in ("place", "home", "dump", "served"))
    for folder in (place, home, dump, served):
        folder.mkdir()
    config = small_config(
        prepare(place),
        "first",
        train={"epochs": 1},
        evaluate={"before_training": False},
        cluster={"num_workers": 1},
        tracking={"uri": None, "experiment": CONTROL, "registered_model": "trips", "system_metrics_every_s": 0.5},
    )
    (place / "mine.toml").write_text(to_toml(config))
    planted = [place / "cluster.env", home / ".netrc", home / ".cache" / "huggingface" / "token"]
    for path, text in zip(
        planted,
        (
            "".join(f"{name}={value}\n" for name, value in ENVIRONMENT.items()),
            f"machine localhost login me password {NETRC}\n",
            FILE_TOKEN,
        ),
        strict=True,
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o600)
    server = MlflowServer(served).start()
    try:
        with login(server.uri, basic(USER, PASSWORD), basic(URL_USER, URL_PASSWORD), basic("me", NETRC)) as mlflow:
            (tmp_path / "steps.json").write_text(json.dumps(steps(place, hub, mlflow, s3)))
            told = run_steps(tmp_path, {"MLFLOW_TRACKING_URI": mlflow, "HF_ENDPOINT": hub.endpoint}, ray_folder)
    finally:
        server.stop()
    (dump / "told").write_text(told)
    (dump / "hub").write_bytes(
        b"\n".join(
            commit.message.encode() + b"".join(commit.files.values())
            for repo in hub.repos.values()
            for branch in repo.branches.values()
            for commit in branch
        )
    )
    found = {}
    for path in [*(path for folder in (place, home, dump, served, ray_folder) for path in folder.rglob("*"))]:
        if path.is_file() and not path.is_symlink() and path not in planted:
            found[path] = path.read_bytes()
    assert {str(path): secrets for path, content in found.items() if (secrets := secrets_in(content))} == {}
    # What is no secret is found in these places: the search reaches them.
    seen = " ".join(
        str(path.relative_to(path.anchor)) for path, content in found.items() if CONTROL.encode() in content
    )
    for name in ("runs/first/config.json", "served/mlflow.db", "dump/told", "dump/store-", "sweep.json"):
        assert name in seen, name
    assert any("/logs/" in str(path) for path in found)
    assert hub.repos.keys() == {"somebody/trips"}


def run_steps(tmp_path: Path, addresses: dict[str, str], ray_folder: Path) -> str:
    """Run the steps with cluster.env in their environment; returns all that they said."""
    own = {"HOME": str(tmp_path / "home"), "RAY_TMPDIR": str(ray_folder), "RAY_AUTH_MODE": "token"}
    switches = {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("RAY_", "HF_", "MLFLOW_", "XDG_")) and name not in ENVIRONMENT
    }
    script = [sys.executable, str(Path(__file__).with_name("canary_jobs.py"))]
    command = [sys.executable, str(ROOT / "cluster_env.py"), str(tmp_path / "place" / "cluster.env"), *script]
    done = subprocess.run(
        [*command, str(tmp_path / "steps.json"), str(tmp_path / "dump")],
        cwd=tmp_path / "place",
        env=kept | own | switches | addresses,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    return done.stdout

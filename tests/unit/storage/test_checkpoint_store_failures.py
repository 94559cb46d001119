"""Checkpoints survive kills, full disks and stores that refuse."""

import contextlib
import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import checkpoints
import pytest
from checkpoints import NEW, OLD, files_of, harm, large, newest, place, publish, save
from pyarrow import fs

from qa_ray.errors import StorageError
from qa_ray.storage.checkpoint_store import MANIFEST, CheckpointStore
from qa_ray.storage.run_folder import RunFolder


class Faulty:
    """A filesystem, or a stream of it, whose operations fail from the `first` one on, or that one alone."""

    def __init__(self, real: Any, first: int, *, alone: bool) -> None:
        self.real, self.alone = real, alone
        self.left = [first]

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self.real, name)
        return (
            (lambda *args, **kwargs: self._do(name, attribute, *args, **kwargs)) if callable(attribute) else attribute
        )

    def _do(self, name: str, operation: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.left[0] -= 1
        if self.left[0] == 0 or (self.left[0] < 0 and not self.alone):
            self._half(name, operation, *args)
            raise OSError(errno.EIO, "Input/output error")
        result = operation(*args, **kwargs)
        if name == "open_output_stream":
            stream = Faulty(result, 0, alone=self.alone)
            stream.left = self.left
            return stream
        return result

    def _half(self, name: str, operation: Callable[..., Any], *args: Any) -> None:
        """What an operation has done before it is cut off; files may be deleted in any order."""
        if name == "write":
            operation(args[0][: len(args[0]) // 2])
        if name == "delete_dir":
            for path in Path(args[0]).rglob("*"):
                if path.is_file() and path.name != MANIFEST:
                    path.unlink()

    def __enter__(self) -> "Faulty":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Faulty]:
    """Make the filesystem of every run a faulty one."""
    genuine = RunFolder.filesystem

    def install(folder: RunFolder, first: int, *, alone: bool = False) -> Faulty:
        filesystem, path = genuine(folder)
        wrapped = Faulty(filesystem, first, alone=alone)
        monkeypatch.setattr(RunFolder, "filesystem", lambda _: (wrapped, path))
        return wrapped

    def undo() -> None:
        monkeypatch.setattr(RunFolder, "filesystem", genuine)

    install.undo = undo
    return install


@pytest.mark.parametrize("alone", [False, True], ids=["all operations after it fail", "it fails alone"])
@pytest.mark.parametrize("before", ["absent", "half-written", "damaged"])
def test_publish_that_fails_at_any_operation_leaves_the_whole_checkpoint_or_none(folder, faulty, caplog, before, alone):
    survivors = []
    for first in range(1, 1000):
        shutil.rmtree(folder.storage_path, ignore_errors=True)
        publish(folder, "step-1", OLD)
        if before != "absent":
            publish(folder, "step-2", OLD)
            harm(place(folder, "step-2") / ("state.pt" if before == "damaged" else MANIFEST), None)
        wrapped = faulty(folder, first, alone=alone)
        with contextlib.suppress(StorageError):
            publish(folder, "step-2", NEW)
        faulty.undo()
        if wrapped.left[0] > 0:
            break
        survivors.append(newest(folder))
        assert survivors[-1] in (("step-1", OLD), ("step-2", NEW))
        if before != "damaged":
            assert CheckpointStore(folder).names()[-1] == survivors[-1][0]
            assert not caplog.messages
    assert newest(folder) == ("step-2", NEW)
    assert first > 15, "each operation must have failed once"
    assert survivors[0] == ("step-1", OLD)


def test_prune_that_fails_warns_and_leaves_nothing_that_is_half_deleted_but_counts(folder, faulty, caplog):
    for first in range(1, 100):
        for step in (1, 2):
            publish(folder, f"step-{step}", OLD)
        wrapped = faulty(folder, first)
        CheckpointStore(folder).prune(keep=["step-2"])
        faulty.undo()
        if wrapped.left[0] > 0:
            break
        assert "not deleted: run.storage_path=" in caplog.messages[-1]
        assert newest(folder) == ("step-2", OLD)
        for name in CheckpointStore(folder).names():
            assert files_of(CheckpointStore(folder).fetch(name)) == OLD
    assert first == 5, "list, look, delete the manifest, delete the rest"
    assert CheckpointStore(folder).names() == ["step-2"]


def test_killed_publisher_leaves_only_whole_checkpoints(folder, caplog):
    """The moment of the kill is any; what must hold does so at every moment."""
    chance, step = random.Random(0), 0
    Path(folder.storage_path).mkdir()
    for _ in range(6):
        published = killed(folder, step + 1, after_s=chance.uniform(0, 0.1))
        name, files = newest(folder)
        assert name >= published[-1]
        step = int(name.removeprefix("step-"))
        assert files == large(step)
    assert not caplog.messages, "what was cut off is no damage"


PUBLISHER = """
import itertools, sys
from checkpoints import large, publish
from qa_ray.storage.run_folder import RunFolder
from qa_ray.storage.checkpoint_store import CheckpointStore

run = RunFolder(sys.argv[1], "run")
for step in itertools.count(int(sys.argv[2])):
    publish(run, f"step-{step:08d}", large(step))
    print(f"step-{step:08d}", flush=True)
    CheckpointStore(run).prune(keep=CheckpointStore(run).names()[-2:])
"""


def killed(folder: RunFolder, first: int, after_s: float) -> list[str]:
    """Start a publisher, let it publish once and then kill it; what it said it had published."""
    command = [sys.executable, "-c", PUBLISHER, folder.storage_path, str(first)]
    helpers = Path(checkpoints.__file__).parent
    with subprocess.Popen(command, cwd=helpers, stdout=subprocess.PIPE, text=True) as process:
        said = process.stdout.readline()
        time.sleep(after_s)
        process.kill()
        said += process.stdout.read()
    assert process.returncode == -signal.SIGKILL
    return said.split()


LIMITED = """
import resource, sys
from pathlib import Path
from qa_ray.storage.run_folder import RunFolder
from qa_ray.storage.checkpoint_store import CheckpointStore

resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
CheckpointStore(RunFolder(sys.argv[1], "run")).publish("step-2", Path(sys.argv[2]))
"""


@pytest.mark.parametrize("size", [2**20 + 1, 2**26], ids=["at the last byte", "early"])
def test_full_disk_is_named_and_the_checkpoint_before_stays(folder, tmp_path, size):
    """A limit on file sizes stands for a full disk: the write stops in the middle."""
    publish(folder, "step-1", OLD)
    source = save(tmp_path / "source", {"a": b"fits", "state.pt": bytes(size)})
    command = [sys.executable, "-c", LIMITED, folder.storage_path, str(source)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    last = finished.stderr.splitlines()[-1]
    assert f"StorageError: run.storage_path={folder.storage_path} cannot be written: " in last
    assert "File too large" in last
    assert place(folder, "step-2").exists()
    assert newest(folder) == ("step-1", OLD)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder_is_named_and_stays_readable(folder, caplog):
    publish(folder, "step-1", OLD)
    place(folder, "").chmod(0o500)
    with pytest.raises(StorageError, match="Permission denied"):
        publish(folder, "step-2", NEW)
    assert newest(folder) == ("step-1", OLD)
    place(folder, "step-1").chmod(0o500)
    CheckpointStore(folder).prune(keep=[])
    assert newest(folder) == ("step-1", OLD)
    assert "checkpoint step-1 is not deleted: run.storage_path=" in caplog.text


def test_file_that_vanishes_while_others_are_written_is_named(folder, monkeypatch):
    class Losing(Faulty):
        """A filesystem that loses a file before it is asked about several."""

        def get_file_info(self, paths: Any) -> Any:
            for path in paths if isinstance(paths, list) else []:
                if path.endswith("state.pt"):
                    self.real.delete_file(path)
            return self.real.get_file_info(paths)

    filesystem, path = folder.filesystem()
    publish(folder, "step-1", OLD)
    losing = Losing(filesystem, 10**9, alone=True)
    words = r"cannot be written: .*state\.pt was written, but is not there in full"
    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "filesystem", lambda _: (losing, path))
        with pytest.raises(StorageError, match=words):
            publish(folder, "step-2", NEW)
    assert newest(folder) == ("step-1", OLD)


def test_vanished_folder_has_no_checkpoints_and_is_made_anew(folder):
    publish(folder, "step-1", OLD)
    store = CheckpointStore(folder)
    shutil.rmtree(folder.storage_path)
    assert store.fetch_newest() is None
    with pytest.raises(StorageError, match=r"step-1 .* has no manifest"):
        store.fetch("step-1")
    publish(folder, "step-2", NEW)
    assert newest(folder) == ("step-2", NEW)


@pytest.fixture
def forbidden(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of checkpoints whose manifest cannot be read for now."""
    genuine, names = RunFolder.read, set()

    def read(folder: RunFolder, name: str) -> bytes | None:
        if names & set(name.split("/")):
            raise StorageError("the store does not answer")
        return genuine(folder, name)

    monkeypatch.setattr(RunFolder, "read", read)
    return names


def test_checkpoint_that_cannot_be_read_gives_way_to_the_one_before(folder, forbidden, caplog):
    publish(folder, "step-1", OLD)
    publish(folder, "step-2", NEW)
    forbidden.add("step-2")
    assert newest(folder) == ("step-1", OLD)
    assert caplog.messages == ["the store does not answer; the checkpoint before step-2 is tried"]


def test_checkpoints_that_cannot_be_read_are_not_taken_for_none(folder, forbidden):
    publish(folder, "step-1", OLD)
    publish(folder, "step-2", NEW)
    publish(folder, "step-3", NEW)
    forbidden.add("step-2")
    for step in (1, 3):
        harm(place(folder, f"step-{step}") / "state.pt", None)
    with pytest.raises(StorageError, match="the store does not answer"):
        newest(folder)


def test_server_that_stops_is_named(monkeypatch):
    from s3 import s3_server

    with s3_server("short-lived") as (server, uri):
        folder = RunFolder(uri, "run")
        publish(folder, "step-1", OLD)
        server.stop()
        # As the URI names it, but for the six seconds for which the client tries.
        address = dict(parse_qsl(urlsplit(uri).query))["endpoint_override"]
        once = fs.AwsStandardS3RetryStrategy(max_attempts=1)
        filesystem = fs.S3FileSystem(endpoint_override=address, scheme="http", retry_strategy=once)
        monkeypatch.setattr(RunFolder, "filesystem", lambda _: (filesystem, "short-lived/run"))
        with pytest.raises(StorageError, match=r"run\.storage_path=s3://short-lived.* cannot be written: ") as caught:
            publish(folder, "step-2", NEW)
    assert "\n" not in str(caught.value)

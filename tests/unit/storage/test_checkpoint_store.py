"""Checkpoints arrive whole on a local disk and on S3, and damaged ones are passed over."""

import json
import logging
from collections.abc import Callable

import pytest
from checkpoints import NEW, OLD, files_of, flip, harm, large, newest, place, publish
from pyarrow import fs

from qa_ray.errors import StorageError
from qa_ray.storage.checkpoint_store import MANIFEST, CheckpointStore
from qa_ray.storage.run_folder import RunFolder


def test_run_without_checkpoints_has_none(anywhere):
    assert CheckpointStore(anywhere).names() == []
    assert newest(anywhere) is None
    CheckpointStore(anywhere).prune(keep=[])


def test_what_is_published_is_fetched(anywhere):
    publish(anywhere, "step-2", NEW)
    publish(anywhere, "step-1", OLD)
    assert CheckpointStore(anywhere).names() == ["step-1", "step-2"]
    assert newest(anywhere) == ("step-2", NEW)
    assert files_of(CheckpointStore(anywhere).fetch("step-1")) == OLD


def test_names_are_sorted_by_step(folder):
    for step in (7, 3, 10, 1, 12, 5, 9, 2, 11, 4, 8, 6):
        publish(folder, f"step-{step:08d}", OLD)
    assert CheckpointStore(folder).names() == [f"step-{step:08d}" for step in range(1, 13)]


def test_local_checkpoint_is_not_copied(folder):
    publish(folder, "step-1", OLD)
    for run in (folder, RunFolder(f"file://{folder.storage_path}", "run")):
        assert CheckpointStore(run).fetch("step-1") == place(folder, "step-1")


def test_large_file_arrives_in_one_piece(anywhere):
    publish(anywhere, "step-1", large(1))
    assert newest(anywhere) == ("step-1", large(1))


def test_publishing_again_replaces_what_was_there(anywhere):
    publish(anywhere, "step-1", OLD)
    anywhere.write(f"checkpoints/step-1/{MANIFEST}", b"damaged")
    publish(anywhere, "step-1", NEW)
    assert newest(anywhere) == ("step-1", NEW)


def test_prune_keeps_what_is_asked(anywhere):
    for step in (1, 2, 3):
        publish(anywhere, f"step-{step}", OLD)
    anywhere.write("checkpoints/step-0/half-written", b"")
    store = CheckpointStore(anywhere)
    store.prune(keep=["step-1", "step-3", "step-7"])
    assert store.names() == ["step-1", "step-3"]
    filesystem, path = anywhere.filesystem()
    left = filesystem.get_file_info(fs.FileSelector(f"{path}/checkpoints", recursive=True))
    assert {info.path.removeprefix(f"{path}/checkpoints/").split("/")[0] for info in left} == {"step-1", "step-3"}
    assert files_of(store.fetch("step-1")) == OLD


@pytest.mark.parametrize("files", [{}, OLD | {MANIFEST: b""}], ids=["no files", "a manifest of its own"])
def test_source_that_could_not_be_fetched_is_refused(folder, files):
    with pytest.raises(ValueError, match="must hold files, and no manifest"):
        publish(folder, "step-1", files)
    assert not folder.exists()


def rename(old: str, new: str) -> Callable[[bytes], bytes]:
    """A change of one file's name in the manifest."""
    return lambda data: data.replace(json.dumps(old).encode(), json.dumps(new).encode())


DAMAGES = {
    "truncated file": ("model/deep/weights", lambda data: data[:-1], "model/deep/weights has 10 bytes instead of 11"),
    "longer file": ("empty", lambda data: b"x", "empty has 1 bytes instead of 0"),
    "flipped bit": ("state.pt", flip, "state.pt has changed: its SHA-256"),
    "missing file": ("state.pt", None, "state.pt is missing"),
    "file outside": (MANIFEST, rename("state.pt", "../step-1/state.pt"), r"names \.\./step-1/state.pt, which is out"),
    "absolute file": (MANIFEST, rename("state.pt", "/etc/passwd"), "names /etc/passwd, which is outside"),
    "no manifest left": (MANIFEST, lambda data: b"", "manifest.json is malformed"),
    "half a manifest": (MANIFEST, lambda data: data[: len(data) // 2], "manifest.json is malformed"),
    "binary manifest": (MANIFEST, lambda data: b"\xff\xfe\x00", "manifest.json is malformed"),
    "another JSON": (MANIFEST, lambda data: b"[1]", "manifest.json is malformed"),
    "another object": (MANIFEST, lambda data: b'{"files": {"state.pt": 3}}', "manifest.json is malformed"),
    "no files": (MANIFEST, lambda data: b'{"files": {}}', "manifest.json names no files"),
    "size as text": (MANIFEST, lambda data: data.replace(b'"size": 11', b'"size": "11"'), "weights has 11 bytes inst"),
}


@pytest.mark.parametrize(("name", "change", "what"), DAMAGES.values(), ids=DAMAGES.keys())
def test_damaged_checkpoint_gives_way_to_the_one_before(folder, caplog, name, change, what):
    publish(folder, "step-1", OLD)
    publish(folder, "step-2", NEW)
    harm(place(folder, "step-2") / name, change)
    assert CheckpointStore(folder).names() == ["step-1", "step-2"]
    assert newest(folder) == ("step-1", OLD)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert caplog.messages[0].startswith("checkpoint step-2 of run.name=run is damaged: ")
    with pytest.raises(StorageError, match=f"checkpoint step-2 of run.name=run is damaged: .*{what}"):
        CheckpointStore(folder).fetch("step-2")


@pytest.mark.parametrize("left", [b"old weighTs", None], ids=["changed", "missing"])
def test_damaged_copy_is_not_left_behind(s3_folder, copies, caplog, left):
    folder = RunFolder(s3_folder, "run")
    publish(folder, "step-1", OLD)
    filesystem, path = folder.filesystem()
    filesystem.delete_file(f"{path}/checkpoints/step-1/model/weights")
    if left is not None:
        folder.write("checkpoints/step-1/model/weights", left)
    assert newest(folder) is None
    assert "model/weights" in caplog.messages[0]
    assert not list(copies.iterdir())


def test_hashes_are_skipped_on_request_but_not_sizes(folder):
    publish(folder, "step-1", OLD)
    weights = place(folder, "step-1") / "model" / "weights"
    weights.write_bytes(b"OLD weights")
    assert CheckpointStore(folder).fetch("step-1", verify=False) == place(folder, "step-1")
    weights.write_bytes(b"")
    with pytest.raises(StorageError, match="has 0 bytes instead of 11"):
        CheckpointStore(folder).fetch("step-1", verify=False)


def test_checkpoint_that_is_not_there_is_named(anywhere):
    publish(anywhere, "step-1", OLD)
    with pytest.raises(StorageError, match=r"step-2 of run.name=run is damaged: it has no manifest.json"):
        CheckpointStore(anywhere).fetch("step-2")

"""Where storage is far away, ranks on several nodes go on from one checkpoint, copied once for each node."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from savers import SavedRun, fail

from qa_ray.errors import StorageError
from qa_ray.storage.checkpoint_store import CheckpointStore
from qa_ray.storage.run_folder import RunFolder


@pytest.fixture(scope="module")
def out(bert, s3, tmp_path_factory):
    """What four ranks on two nodes saw of a run whose last checkpoint waited on the second node."""
    out = tmp_path_factory.mktemp("out")
    bucket, mark, query = s3.partition("?")
    run = SavedRun(bert, RunFolder(f"{bucket}/nodes{mark}{query}", "run"))
    run.begin()
    with pytest.MonkeyPatch.context() as patched:
        for node in (0, 1):
            (out / f"node-{node}").mkdir()
            patched.setattr(tempfile, "tempdir", str(out / f"node-{node}"))
            ownership, saved = run.take_over()
            saver = run.saver(saved=saved, ownership=ownership)
            run.step()
            if node:
                patched.setattr(CheckpointStore, "publish", fail(StorageError("the store is down")))
                run.save_evaluated(saver)
                with pytest.raises(StorageError):
                    saver.close()
            else:
                run.save(saver)
                saver.close()
    command = [sys.executable, str(Path(__file__).with_name("saved_ranks.py")), run.folder.storage_path, str(out)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr[-4000:]
    return out


@pytest.fixture(scope="module")
def seen(out):
    return [json.loads((out / f"{rank}.json").read_text()) for rank in range(4)]


def test_one_rank_of_each_node_fetches_the_checkpoint(out, seen):
    name = "step-00000002"
    assert [rank["apart"]["fetched"] for rank in seen] == [[name], [], [name], []]
    places = [rank["apart"]["place"] for rank in seen]
    assert [place.startswith(f"{out}/node-{rank // 2}/") for rank, place in enumerate(places)] == [True] * 4
    assert (places[0], places[2]) == (places[1], places[3])


def test_checkpoint_that_waits_on_any_node_is_stored_first(seen):
    assert [rank["apart"]["step"] for rank in seen] == [2, 2, 2, 2]


def test_nodes_that_share_a_disk_share_the_copy(seen):
    found = [rank["on one disk"] for rank in seen]
    assert len({one["place"] for one in found}) == 1
    assert [one["fetched"] for one in found] == [["step-00000002"], [], [], []]


def test_copies_are_deleted_once_all_have_read_them(out, seen):
    assert not any(rank[disks]["left"] for rank in seen for disks in ("apart", "on one disk"))
    assert not list(out.glob("node-*/qa_ray-*/*/*/fetched/*/*"))


def test_storage_that_cannot_be_read_is_an_error_on_every_rank(seen):
    assert all(rank["refused"].endswith("the store is down") for rank in seen)
    assert len({rank["refused"] for rank in seen}) == 1
    assert all(rank["down"].endswith("the store is away") for rank in seen)

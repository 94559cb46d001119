"""A worker group stores what waits on its node, unless the run has gone on without it, and goes on from there."""

import logging
import shutil
from functools import partial
from pathlib import Path

import pytest
from savers import SavedRun, fail

from qa_ray.errors import StorageError
from qa_ray.runs.saved import Best, Facts, Saved
from qa_ray.runs.takeover import Waiting, choose
from qa_ray.storage.checkpoint_store import CheckpointStore
from qa_ray.storage.run_folder import checkpoint_name
from qa_ray.storage.staging import staging_place
from qa_ray.storage.upload import Uploader

DOWN = fail(StorageError("the store is down"))


@pytest.fixture
def run(bert, folder, monkeypatch):
    monkeypatch.setattr("qa_ray.runs.takeover.Uploader", partial(Uploader, pauses=(0.0,)))
    run = SavedRun(bert, folder)
    run.begin()
    return run


def left(run):
    """What stands on this node."""
    return sorted(path.name for path in staging_place(run.folder).glob("*/*"))


def test_epoch_that_could_not_be_stored_is_stored_by_the_same_command(run, monkeypatch, caplog):
    ownership, _ = run.take_over()
    saver = run.saver(ownership=ownership)
    run.loop.train_epoch()
    with monkeypatch.context() as refused:
        refused.setattr(CheckpointStore, "publish", DOWN)
        run.save_evaluated(saver)
        with pytest.raises(StorageError, match="run the same command again: they are stored first") as raised:
            saver.close()
    (staged,) = staging_place(run.folder).glob("*/*")
    assert str(staged) in str(raised.value)
    run.begin("again")
    with caplog.at_level(logging.INFO, "qa_ray"):
        _, saved = run.take_over("again")
    assert saved.snapshot.step == run.loop.state.step
    assert saved.best == Best(run.loop.state.step, 50.0)
    assert (saved.folder / "evaluation" / "predictions.json").exists()
    assert f"the checkpoint that waited in {staged} is stored" in caplog.text
    assert left(run) == []


def test_storage_that_still_refuses_is_told_and_loses_nothing(run, monkeypatch):
    saver = run.saver(ownership=run.take_over()[0])
    run.loop.train_epoch()
    with monkeypatch.context() as refused:
        refused.setattr(CheckpointStore, "publish", DOWN)
        run.save_evaluated(saver)
        with pytest.raises(StorageError):
            saver.close()
        for _ in range(2):
            with pytest.raises(StorageError, match="cannot be stored: their files are in ") as raised:
                run.take_over()
            (staged,) = staging_place(run.folder).glob("*/*")
            assert str(staged) in str(raised.value)
    assert run.take_over()[1].snapshot.step == run.loop.state.step


def test_what_a_killed_group_left_whole_is_stored_and_the_rest_is_deleted(run, monkeypatch):
    saver = run.saver(ownership=run.take_over()[0])
    run.step()
    with monkeypatch.context() as killed:
        killed.setattr(Uploader, "submit", lambda *_, **__: None)
        saver.save(run.loop, run.model)
        saver.abandon()
    (whole,) = staging_place(run.folder).glob("*/*")
    shutil.copytree(whole, whole.with_name("step-00000002.part"))
    shutil.copytree(whole, whole.with_name("fetched"))
    assert run.take_over()[1].snapshot.step == 1
    assert left(run) == []


def test_folder_that_is_no_checkpoint_is_told_and_deleted(run, caplog):
    group = run.take_over()[0].group
    odd = staging_place(run.folder) / group / "step-00000001"
    odd.mkdir(parents=True)
    (odd / "saved.json").write_bytes(bytes(9))
    assert run.take_over()[1] is None
    assert f"{odd} is no checkpoint" in caplog.text
    assert left(run) == []


def test_group_that_lives_on_neither_stores_nor_deletes_after_another_has_taken_over(run):
    older = run.saver(ownership=run.take_over()[0])
    for _ in range(3):
        run.step()
        run.save(older)
    assert CheckpointStore(run.folder).names() == ["step-00000002", "step-00000003"]
    younger = run.saver(ownership=run.take_over()[0])
    run.step()
    run.save(older)
    older.close()
    assert CheckpointStore(run.folder).names() == ["step-00000002", "step-00000003"]
    run.save(younger)
    assert CheckpointStore(run.folder).names() == ["step-00000003", "step-00000004"]
    younger.close()


def test_lineage_names_every_group_and_where_it_began(run):
    groups, saved = [], None
    for _ in range(3):
        ownership, saved = run.take_over()
        groups.append(ownership.group)
        saver = run.saver(saved=saved, ownership=ownership)
        run.step()
        run.save(saver)
        saver.close()
    assert run.found().facts.lineage == tuple(enumerate(groups))


def facts(step, *lineage, evaluated=False, best=None):
    return Facts(step, evaluated, Best(best, 50.0) if best else None, lineage)


def evaluated(step, *lineage, best=None):
    return facts(step, *lineage, evaluated=True, best=best or step)


A, B6, B0 = (0, "a"), (6, "b"), (0, "b")
CASES = {
    "nothing is stored": ([evaluated(6, A), facts(8, A)], None, [], [6, 8]),
    "it is newer": ([evaluated(12, A)], facts(6, A), [6], [12]),
    "it is newer, by a group that went on": ([evaluated(12, A, B6)], evaluated(6, A), [6], [12]),
    "what is stored says nothing of its groups": ([evaluated(12, B6)], facts(6), [6], [12]),
    "the same is stored": ([evaluated(6, A)], evaluated(6, A), [6], []),
    "the same is stored without its evaluation": ([evaluated(6, A)], facts(6, A), [6], [6]),
    "both wait": ([facts(6, A), evaluated(6, A)], None, [], [6]),
    "a newer one is stored": ([evaluated(6, A)], facts(9, A, best=3), [3, 9], []),
    "a newer one is stored, and this is the best": ([evaluated(6, A)], facts(9, A, best=6), [9], [6]),
    "the best is stored too": ([evaluated(6, A)], facts(9, A, best=6), [6, 9], []),
    "the best was trained before another group went on": ([evaluated(6, A)], facts(9, A, B6, best=6), [9], [6]),
    "the run went on without it": ([evaluated(12, A)], facts(9, A, B6), [6, 9], []),
    "the run began anew without it": ([evaluated(12, A)], facts(3, B0), [3], []),
    "it is of a newer group than what is stored": ([evaluated(8, A, B6)], facts(9, A), [6, 9], [8]),
    "an older group's waits beside it": ([evaluated(12, A), evaluated(10, A, B6)], facts(6, A), [6], [10]),
    "both groups reached the same step": ([evaluated(12, A), evaluated(12, A, B6)], facts(6, A), [6], [12]),
}


@pytest.mark.parametrize(("waiting", "stored", "names", "steps"), CASES.values(), ids=CASES)
def test_what_waits_is_stored_where_it_belongs_to_the_run_and_adds_to_it(waiting, stored, names, steps):
    found = [Waiting(rank, Path(f"{rank}"), one) for rank, one in enumerate(waiting)]
    chosen = choose(found, stored, [checkpoint_name(step) for step in names])
    assert [one.facts.step for one in chosen] == steps
    newest = max(waiting, key=lambda one: one.group).group
    assert all(one.facts.group == newest for one in chosen)


def test_checkpoint_that_two_nodes_see_on_one_disk_is_stored_once():
    one = evaluated(6, A)
    (chosen,) = choose([Waiting(rank, Path("shared"), one) for rank in (0, 4)], None, [])
    assert chosen.place == Path("shared")


def test_facts_of_an_earlier_version_can_be_read(run):
    saver = run.saver()
    run.step()
    run.save(saver)
    saver.close()
    name = "step-00000001"
    assert Facts.parse(name, '{"best": null, "config": {}}') == Facts(1, False, None, ())
    found = run.found()
    assert Saved.read(name, found.folder, fetched=False).facts == found.facts

"""A worker group takes a run over: it claims it, stores what earlier groups could not, and finds where to go on."""

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from accelerate import PartialState
from accelerate.utils import gather_object

from qa_ray.runs.ranks import on_all, on_main
from qa_ray.runs.saved import FACTS, Facts, Saved, find_saved
from qa_ray.storage.checkpoint_store import CheckpointStore
from qa_ray.storage.ownership import Ownership
from qa_ray.storage.run_folder import CHECKPOINTS, RunFolder, checkpoint_name
from qa_ray.storage.staging import Staging
from qa_ray.storage.upload import Uploader

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A whole checkpoint that an earlier worker group left on a node."""

    rank: int
    """Sees it."""
    place: Path
    facts: Facts


def take_over(folder: RunFolder, state: PartialState, job: str) -> tuple[Ownership, Saved | None]:
    """What a worker group of `job` must hold to write into the run, and the checkpoint that it goes on from, if any.

    Raises:
        StorageError: another job has gone on with the run, the storage cannot be used, or see `private_folder`.
    """
    ownership = on_main(state, lambda: Ownership.claim(folder, job))
    _store_waiting(state, ownership)
    return ownership, find_saved(folder, state, ownership.group)


def _store_waiting(state: PartialState, ownership: Ownership) -> None:
    """Store what waits on the nodes that take part, and clear their disks of all else that earlier groups left."""
    folder, rank, looks = ownership.folder, state.process_index, state.is_local_main_process
    staging = Staging(folder, ownership.group)
    found = gather_object(on_all(lambda: _look(staging, rank) if looks else []))
    if found:
        chosen = on_main(state, lambda: _choose(found, folder))
        on_all(lambda: _publish([one for one in chosen if one.rank == rank], staging, ownership))
    if looks:
        staging.clear_others()


def _look(staging: Staging, rank: int) -> list[Waiting]:
    found = []
    for place in staging.waiting():
        try:
            facts = Facts.parse(place.name, (place / FACTS).read_bytes())
        except (OSError, ValueError, KeyError, TypeError) as error:
            # Its group has just stored and deleted it, or the disk has lost what was on it.
            logger.warning("%s is no checkpoint: %s", place, error)
        else:
            found.append(Waiting(rank, place, facts))
    return found


def _choose(waiting: Sequence[Waiting], folder: RunFolder) -> list[Waiting]:
    store = CheckpointStore(folder)
    names = store.names()
    chosen = choose(waiting, _newest_stored(folder, names), names)
    for one in waiting:
        told = "is stored" if one in chosen else "is not needed any more, and deleted"
        logger.info("the checkpoint that waited in %s %s", one.place, told)
    return chosen


def choose(waiting: Sequence[Waiting], stored: Facts | None, names: Collection[str]) -> list[Waiting]:
    """Which of the checkpoints that wait are to be stored, given the newest one stored and the names of all.

    A run can have gone on past one that waits, from an older checkpoint: on a node that has come back, say. What was
    trained by the newest group counts, and what led to it; any other one was abandoned, even if it has more steps:
    metrics and later checkpoints do not come from it.
    """
    head = max([*(one.facts for one in waiting), *([stored] if stored else [])], key=lambda one: (one.group, one.step))
    ordered = sorted(waiting, key=lambda one: (one.facts.step, one.facts.evaluated))
    # A step may be there without its evaluation too, and twice where nodes share a disk.
    ours = {one.facts.step: one for one in ordered if one.facts.is_of_one_run_with(head)}
    known = stored if stored and stored.is_of_one_run_with(head) else None
    return [one for one in ours.values() if known is None or _adds(one.facts, known, head, names)]


def _adds(one: Facts, stored: Facts, head: Facts, names: Collection[str]) -> bool:
    """Whether a checkpoint is of use beside the newest one stored, of the same run: later ones hold all but a model."""
    if one.step >= stored.step:
        return one.step > stored.step or one.evaluated > stored.evaluated
    is_best = head.best is not None and head.best.step == one.step
    return is_best and one.evaluated and checkpoint_name(one.step) not in names


def _newest_stored(folder: RunFolder, names: Sequence[str]) -> Facts | None:
    for name in reversed(names):
        try:
            return Facts.parse(name, folder.read(f"{CHECKPOINTS}/{name}/{FACTS}") or b"")
        except (ValueError, KeyError, TypeError):
            continue  # it is damaged, and will be passed over
    return None


def _publish(waiting: Sequence[Waiting], staging: Staging, ownership: Ownership) -> None:
    if not waiting:
        return
    uploader = Uploader(CheckpointStore(ownership.folder, ownership.holds), keep=None)
    for one in waiting:
        if place := staging.adopt(one.place):
            uploader.submit(checkpoint_name(one.facts.step), place, best=None, required=True)
    uploader.close()

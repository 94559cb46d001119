"""Publishes checkpoints of a run without end, until it is killed: publisher.py STORAGE_PATH FIRST_STEP."""

import itertools
import sys

from checkpoints import large, publish

from qa_ray.storage.checkpoint_store import CheckpointStore
from qa_ray.storage.run_folder import RunFolder


def main(storage_path: str, first: int) -> None:
    run = RunFolder(storage_path, "run")
    for step in itertools.count(first):
        name = f"step-{step:08d}"
        publish(run, name, large(step))
        print(name, flush=True)
        store = CheckpointStore(run)
        store.prune(keep=store.names()[-2:])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

"""Four processes, as two ranks on each of two nodes, take a run over: `saved_ranks.py STORAGE OUT`.

OUT/node-0 and OUT/node-1 are the nodes' folders for temporary files. What each rank saw is written to OUT/RANK.json.
"""

import json
import os
import sys
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[3])]

from accelerate import Accelerator  # noqa: E402
from accelerate.utils import InitProcessGroupKwargs  # noqa: E402
from torch.multiprocessing import start_processes  # noqa: E402

from qa_ray.errors import StorageError  # noqa: E402
from qa_ray.runs.takeover import take_over  # noqa: E402
from qa_ray.storage.checkpoint_store import CheckpointStore  # noqa: E402
from qa_ray.storage.run_folder import RunFolder  # noqa: E402

SIZE = 4


def work(rank: int, storage: str, out: str) -> None:
    node, local = divmod(rank, 2)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(SIZE), "LOCAL_RANK": str(local), "LOCAL_WORLD_SIZE": "2"}
    # They meet at a file: a port that is free now may be taken when they use it. Accelerate wants one all the same.
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    tempfile.tempdir = f"{out}/node-{node}"
    meeting = InitProcessGroupKwargs(init_method=f"file://{out}/meeting", timeout=timedelta(minutes=10))
    accelerator = Accelerator(cpu=True, kwargs_handlers=[meeting])
    folder, fetch = RunFolder(storage, "run"), CheckpointStore.fetch
    seen: dict[str, Any] = {}
    fetched: list[str] = []

    def counting(self: CheckpointStore, name: str, **options: Any) -> Path:
        fetched.append(name)
        return fetch(self, name, **options)

    def refusing(self: CheckpointStore, name: str, **options: Any) -> Path:
        if node:
            raise StorageError("the store is down")
        return fetch(self, name, **options)

    def lower(self: CheckpointStore) -> None:
        raise StorageError("the store is away")

    def go_on() -> dict[str, Any]:
        fetched.clear()
        _, saved = take_over(folder, accelerator, "job")
        assert saved is not None
        facts = {"step": saved.snapshot.step, "place": str(saved.folder), "fetched": list(fetched)}
        accelerator.wait_for_everyone()
        saved.discard()
        accelerator.wait_for_everyone()
        return facts | {"left": saved.folder.exists()}

    CheckpointStore.fetch = counting
    seen["apart"] = go_on()
    tempfile.tempdir = f"{out}/node-0"
    seen["on one disk"] = go_on()
    tempfile.tempdir = f"{out}/node-{node}"
    CheckpointStore.fetch = refusing
    try:
        go_on()
    except StorageError as error:
        seen["refused"] = str(error)
    CheckpointStore.fetch = fetch
    if rank == 0:
        CheckpointStore.fetch_newest = lower
    try:
        go_on()
    except StorageError as error:
        seen["down"] = str(error)
    (Path(out) / f"{rank}.json").write_text(json.dumps(seen))
    accelerator.end_training()


if __name__ == "__main__":
    # Forked, so that what is imported is imported once; where one fails, the others are ended.
    start_processes(work, tuple(sys.argv[1:]), nprocs=SIZE, start_method="fork")

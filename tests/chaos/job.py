"""jobs/train.py, which also prints what rank 0 records, a line of JSON each: groups of workers, steps, evaluations."""

import json
import os
import sys
from functools import partial
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[1]))

from ray import cloudpickle

from chaos import memory
from qa_ray.cli.commands import run_configured
from qa_ray.config.fine_tuning import Config
from qa_ray.runs import driver
from qa_ray.runs.stream import Restart
from qa_ray.tracking.metrics import Progress


def show(item: Progress | Restart) -> None:
    if isinstance(item, Restart):
        event: dict[str, object] = {"restart": item.step}
    else:
        event = {"phase": item.phase, "step": item.step, "time": item.time, "measured": bool(item.metrics)}
    print(json.dumps(event), flush=True)


def job(config: Config) -> str:
    shortage = os.environ.get(memory.SHORTAGE)
    # The workers cannot import it.
    cloudpickle.register_pickle_by_value(memory)
    work = partial(memory.train_worker, shortage) if shortage else driver.train_worker
    with mock.patch.object(driver, "train_worker", work):
        return driver.train(config, driver.RunContext(observe=show)).folder


if __name__ == "__main__":
    sys.exit(run_configured(job, sys.argv[1:], "job.py", ""))

"""jobs/train.py, which also prints what rank 0 records, a line of JSON each: groups of workers, steps, evaluations."""

import json
import sys

from qa_ray.cli.commands import run_configured
from qa_ray.config.fine_tuning import Config
from qa_ray.runs.driver import RunContext, train
from qa_ray.runs.stream import Restart
from qa_ray.tracking.metrics import Progress


def show(item: Progress | Restart) -> None:
    if isinstance(item, Restart):
        event: dict[str, object] = {"restart": item.step}
    else:
        event = {"phase": item.phase, "step": item.step, "time": item.time, "measured": bool(item.metrics)}
    print(json.dumps(event), flush=True)


def job(config: Config) -> str:
    return train(config, RunContext(observe=show)).folder


if __name__ == "__main__":
    sys.exit(run_configured(job, sys.argv[1:], "job.py", ""))

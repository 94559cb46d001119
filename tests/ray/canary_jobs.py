"""Run command lines on one local cluster, and then keep what its object store and its head have in memory.

canary_jobs.py STEPS DUMP    STEPS is a JSON file of [words, environment, exit code]; DUMP a folder
"""

import json
import os
import sys
from pathlib import Path

import psutil
import ray
from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_list

from qa_ray.cli.console import main
from qa_ray.config.operation import ClusterConfig
from qa_ray.runs import connection


def run(words: list[str], changes: dict[str, str | None]) -> int:
    """Run a command line with some variables changed; None takes one away."""
    before = dict(os.environ)
    for name, value in changes.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    try:
        return main(words)
    except SystemExit as ended:
        return int(ended.code or 0)
    finally:
        os.environ.clear()
        os.environ.update(before)


def keep_store(folder: Path) -> None:
    """Copy what is written of the object store's memory; a freed object stays until another takes its place."""
    session = ray._private.worker.global_worker.node.get_session_dir_path()
    processes = [process for process in psutil.process_iter(["name", "cmdline"]) if process.info["name"] == "raylet"]
    (raylet,) = [process.pid for process in processes if session in " ".join(process.info["cmdline"])]
    links = [link for link in Path(f"/proc/{raylet}/fd").iterdir() if "plasma" in os.readlink(link)]
    for number, link in enumerate(
        link for link in links if "/dev/shm" in os.readlink(link) or "/tmp" in os.readlink(link)
    ):
        with open(link, "rb") as memory, open(folder / f"store-{number}", "wb") as copy:
            size, end = os.fstat(memory.fileno()).st_size, 0
            while end < size:
                try:
                    start = os.lseek(memory.fileno(), end, os.SEEK_DATA)
                except OSError:
                    break  # nothing is written beyond
                end = os.lseek(memory.fileno(), start, os.SEEK_HOLE)
                memory.seek(start)
                copy.write(memory.read(end - start))


def keep_head(folder: Path) -> None:
    """Copy what the head knows by names: functions and classes, and the settings of jobs."""
    for space in (None, b"fun", b"job", b"session", b"dashboard", b"cluster", b"serve", b"autoscaler"):
        for key in _internal_kv_list(b"", namespace=space):
            with open(folder / f"head-{space}", "ab") as copy:
                copy.write(key + b"\n" + (_internal_kv_get(key, namespace=space) or b"") + b"\n")


if __name__ == "__main__":
    steps, dump = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    connection.start_ray(ClusterConfig(local_cpus=2))
    connection.start_ray = lambda cluster: None  # type: ignore[assignment]
    for words, changes, code in steps:
        print(">", words[0], flush=True)
        found = run(words, changes)
        assert found == code, f"{words} ended with {found}, not with {code}"
    keep_store(dump)
    keep_head(dump)
    print("all steps done", flush=True)

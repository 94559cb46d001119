"""The command line of the jobs: parse, --dry-run, logging, ray.init, call."""

import argparse
import dataclasses
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from typing import TypeVar, cast

import ray
import tyro

from qa_ray.config.fine_tuning import Config
from qa_ray.config.operation import ClusterConfig
from qa_ray.config.recipes import RECIPES
from qa_ray.errors import ClusterError, StoppedError, UserError

T = TypeVar("T")
Extended = TypeVar("Extended", bound=Config)

# Ray's own processes run on the cores that train. On one machine without a dashboard nobody reads Ray's metrics, no
# worker's log is forwarded (so none need be looked for), and no cloud takes the node away.
_LOCAL_ENVIRONMENT = {
    "RAY_enable_metrics_collection": "0",
    "REPORTER_UPDATE_INTERVAL_MS": "60000",
    "RAY_LOG_MONITOR_MANY_FILES_THRESHOLD": "0",  # from so many files on, new ones are sought at the next interval
    "LOG_NAME_UPDATE_INTERVAL_S": "3600",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    # Nothing answers there: Ray Train would look for a dashboard for 40 s, and a shorter run would wait at its end.
    "RAY_API_SERVER_ADDRESS": "http://127.0.0.1:1",
}


def main(
    job: Callable[[Extended], str],
    argv: Sequence[str] | None = None,
    *,
    extend: Callable[[Config], Config] = lambda recipe: recipe,
) -> int:
    """Run `job` with the configuration that the command line describes, print what it returns; see `exit_code`.

    `extend` makes the configuration that `job` takes of a recipe, if it has knobs of its own.
    """

    def run() -> None:
        config, dry_run = parse(sys.argv[1:] if argv is None else argv, extend)
        if dry_run:
            print(json.dumps(dataclasses.asdict(config), indent=1))
            return
        _hide_scripts()
        _set_up_logging()
        start_ray(config.cluster)
        print(job(cast(Extended, config)))

    return exit_code(run)


def run_job(options: type[T], job: Callable[[T], str], argv: Sequence[str] | None = None) -> int:
    """Run a job that has options of its own instead of a recipe, and print what it returns; see `exit_code`.

    Args:
        options: dataclass whose fields become the command line; its docstring is the help.
        job: starts Ray itself if it needs it, by `start_ray`.
        argv: arguments, those of the process by default.
    """

    def run() -> None:
        parsed = tyro.cli(options, args=argv, config=(tyro.conf.EnumChoicesFromValues,))
        _hide_scripts()
        _set_up_logging()
        print(job(parsed))

    return exit_code(run)


def exit_code(action: Callable[[], None]) -> int:
    """Call `action`, and tell of an error that the user can mend in words instead of a traceback.

    Returns 0, 1 after such an error, or 130 after Ctrl-C and 143 after SIGTERM. Wrong arguments exit with 2.
    """
    try:
        action()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except StoppedError as stopped:
        print(stopped, file=sys.stderr)
        return stopped.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def _hide_scripts() -> None:
    """Take the running script's folder off the import path, for this process and for Ray's workers after it.

    Whoever imports the library `evaluate` would find jobs/evaluate.py there.
    """
    folder = os.path.dirname(os.path.realpath(sys.argv[0]))
    if os.path.isfile(sys.argv[0]):
        sys.path[:] = [place for place in sys.path if os.path.realpath(place) != folder]


def _set_up_logging() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for noisy in ("httpx", "httpx2", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # It warns of a cluster without free CPUs while a new one has not yet counted them.
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    # MLflow sets up its logger when it is imported, from this.
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    # It would draw one for each handful of files.
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")


def parse(argv: Sequence[str], extend: Callable[[Config], Config] = lambda recipe: recipe) -> tuple[Config, bool]:
    """Read `RECIPE [--dry-run] [--section.field VALUE ...]` into a configuration, and whether it is only shown."""
    parser = argparse.ArgumentParser(
        description="Choose a recipe; RECIPE --help lists every knob.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="recipes:\n" + "\n".join(f"  {name:<22} {recipe.__doc__}" for name, recipe in RECIPES.items()),
    )
    parser.add_argument("recipe", choices=RECIPES, metavar="RECIPE", help="a complete configuration, see below")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved configuration and stop")
    # Help after the recipe's name is about its knobs, not about this parser.
    own = [item for item in argv[1:] if item == "--dry-run"]
    chosen = parser.parse_args([*argv[:1], *own])
    default = extend(RECIPES[chosen.recipe]())
    config = tyro.cli(
        type(default),
        prog=f"{parser.prog} {chosen.recipe}",
        args=[item for item in argv[1:] if item not in own],
        default=default,
        config=(tyro.conf.EnumChoicesFromValues,),
    )
    if config.run.name is None:
        run = dataclasses.replace(config.run, name=f"{chosen.recipe}-{time.strftime('%Y%m%d-%H%M%S')}")
        config = dataclasses.replace(config, run=run)
    return config, chosen.dry_run


def start_ray(config: ClusterConfig) -> None:
    """Join the cluster that `config` or RAY_ADDRESS names, or start a local one.

    Raises:
        ClusterError: there is no cluster at the address.
    """
    address = config.address or os.environ.get("RAY_ADDRESS")
    if address is None:
        for name, value in _LOCAL_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        # Without an address ray.init would join a cluster that happens to run on this machine.
        cores = config.local_cpus or len(os.sched_getaffinity(0))  # Ray counts those of other containers too
        where = {"address": "local", "num_cpus": cores, "include_dashboard": False}
    else:
        _require_reachable(address)
        where = {"address": address}
    try:
        # The workers' own messages come through the metric stream, beside the progress bar.
        ray.init(**where, log_to_driver=False, logging_level=logging.WARNING)
    # RuntimeError: the cluster has another version of Ray or Python.
    except (ConnectionError, RuntimeError) as error:
        raise ClusterError(f"cluster.address={address}: {' '.join(str(error).split())}") from error


def _require_reachable(address: str) -> None:
    """Refuse an address where nothing listens; Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return  # a word such as auto
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise ClusterError(
            f"cluster.address={address}: nothing answers there ({error.strerror or error}): give the address that "
            "`ray start --head` printed, or none for a local cluster"
        ) from error

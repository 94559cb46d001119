"""All checks of a run, one after the other, each bounded in time and none stopping the others."""

import logging
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import TypeVar

from qa_ray.config.fine_tuning import Config
from qa_ray.doctor import clock, disk, hub, inputs, installation, machine, tracking
from qa_ray.doctor.nodes import DRIVER, Answers, Nodes, asks_for_token, in_time, reason
from qa_ray.doctor.verdict import Verdict, failed, passed, share, skipped, told, warning
from qa_ray.errors import UserError
from qa_ray.model.loading import count_weights
from qa_ray.runs.resources import Resources, choose, plan_resources
from qa_ray.runs.resume import find_run
from qa_ray.storage.run_folder import RunFolder

logger = logging.getLogger(__name__)

T = TypeVar("T")
Check = Callable[[], Verdict]

PATIENCE_S = 120.0
"""Seconds that a node has for an answer: the first one imports torch and transformers, maybe from a network disk."""
_QUESTIONS = 4
"""Rounds of questions that a check puts at most."""
# fp32 weights and gradients, and Adam's two running means.
_BYTES_IN_TRAINING = 16


def examine(config: Config, patience_s: float = PATIENCE_S) -> Iterator[tuple[str, Verdict]]:
    """Yield each check's name and verdict for a run of `config` on the cluster that this process is connected to.

    Nothing that is written stays.

    Args:
        config: of the run.
        patience_s: seconds that a node has for an answer.
    """
    examination = _Examination(config, Nodes.joined(patience_s))
    for name, check in examination.checks():
        yield name, _bounded(check, _QUESTIONS * patience_s)


def _bounded(check: Check, seconds: float) -> Verdict:
    """A check's verdict, whatever becomes of it."""

    def run() -> Verdict:
        try:
            return check()
        except UserError as error:
            return failed("does not work as it is set", str(error))
        # A mistake in one check says nothing of the others.
        except Exception as error:
            logger.debug("a check failed by itself", exc_info=True)
            return failed(
                f"the check itself failed: {reason(error)}", "see the reason; the other checks are not affected"
            )

    return in_time(run, seconds) or failed(
        f"no answer within {seconds:g} s", "see whether the network or a disk hangs, and try again"
    )


class _Examination:
    """The checks, and what several of them need to know."""

    def __init__(self, config: Config, nodes: Nodes) -> None:
        self._config = config
        self._nodes = nodes

    def checks(self) -> list[tuple[str, Check]]:
        """In the order in which they are made: a node that does not answer the first is asked nothing more."""
        return [
            ("nodes", self._answering),
            ("clocks", lambda: clock.same_time(self._nodes.read_clocks())),
            ("versions", lambda: _of_all(self._installed, installation.same_versions)),
            ("code", lambda: _of_all(self._installed, installation.same_code)),
            ("authentication", self._authentication),
            ("open files", lambda: _of_all(self._rooms, machine.open_files)),
            ("workers", self._workers),
            ("GPUs", self._gpus),
            ("precision", self._precision),
            ("run", self._run),
            ("storage", self._storage),
            ("disk", self._disk),
            ("model", self._model),
            ("memory", self._memory),
            ("training data", lambda: self._split("train")),
            ("validation", lambda: self._split("validation")),
            ("object store", self._object_store),
            ("tracking", lambda: tracking.record(self._config.tracking)),
            ("tracking nodes", self._tracking_nodes),
            ("Hub", lambda: hub.publication(self._config.publish)),
        ]

    @cached_property
    def _weights(self) -> int | None:
        """Number of the model's weights; None where it cannot be loaded, which the check of the model tells."""
        try:
            return count_weights(self._config.model)
        except UserError:
            return None

    @cached_property
    def _installed(self) -> Answers[installation.Installation]:
        return self._nodes.ask(installation.installed, driver=True)

    @cached_property
    def _rooms(self) -> Answers[machine.Room]:
        return self._nodes.ask_each(machine.room, {node.name: (node.session,) for node in self._nodes.all})

    @cached_property
    def _resources(self) -> Resources:
        """The workers that the run would get if they fit."""
        nodes = self._nodes.all
        return choose(self._config.cluster, sum(node.cpus for node in nodes), sum(node.gpus for node in nodes))

    @cached_property
    def _devices(self) -> Answers[machine.Devices]:
        return self._nodes.ask(machine.devices, self._config.train.precision, self._resources.use_gpu)

    @cached_property
    def _data(self) -> dict[str, Answers[inputs.Look]]:
        data = self._config.data
        splits = {"train": data.train, "validation": data.validation}
        if data.hub is not None:
            # It is loaded on the driver and travels through the object store.
            here = {name: {DRIVER: (data, split)} for name, split in splits.items()}
            return {name: self._nodes.ask_each(inputs.look_at_hub, place) for name, place in here.items()}
        return {name: self._nodes.ask(inputs.look_at_files, data, place, driver=True) for name, place in splits.items()}

    def _answering(self) -> Verdict:
        """Whether every node answers; those that do not are asked nothing more."""
        answers = self._installed
        silent = {name: message for name, message in answers.failures.items() if name != DRIVER}
        self._nodes = self._nodes.only(answers.values)
        self._installed = Answers(answers.values, {})
        if silent:
            return failed(told(silent), "see whether qa_ray is installed there, and what `ray status` says of the node")
        names = [node.name for node in self._nodes.all]
        return passed(f"{len(names)} answer{'s' * (len(names) == 1)}: {share(names)}")

    def _authentication(self) -> Verdict:
        if len(self._nodes.all) == 1:
            return skipped("there is one node")
        if asks_for_token():
            return passed("Ray asks for a token")
        return warning(
            "whoever reaches the cluster's ports can run code on it",
            "keep its network private, or start Ray with RAY_AUTH_MODE=token on all nodes",
        )

    def _workers(self) -> Verdict:
        plan = plan_resources(self._config.cluster)
        number = f"{plan.min_workers} to {plan.max_workers}" if plan.elastic else str(plan.max_workers)
        return passed(f"{number} with {plan.cpus_per_worker} CPU{' and a GPU' * plan.use_gpu} each")

    def _gpus(self) -> Verdict:
        need = self._weights and self._weights * _BYTES_IN_TRAINING
        counted = {node.name: node.gpus for node in self._nodes.all}
        return _of_all(self._devices, lambda found: machine.same_gpus(found, counted, need))

    def _precision(self) -> Verdict:
        working = {node.name for node in self._nodes.all if node.gpus or not self._resources.use_gpu}

        def judge(found: Mapping[str, machine.Devices]) -> Verdict:
            used = {name: one for name, one in found.items() if name in working}
            if not used:
                return skipped("no node has a GPU to look at")
            return machine.same_precision(used, self._config.train.precision)

        return _of_all(self._devices, judge)

    def _run(self) -> Verdict:
        found = find_run(self._config)
        if found.finished:
            return passed(f"{found.folder.name} is finished: it would be shown, not trained again")
        return passed(f"{found.folder.name} {'goes on from where it stopped' if found.resumed else 'is new'}")

    def _storage(self) -> Verdict:
        storage = RunFolder.locate(self._config.run)
        probe, nodes = disk.Probe.below(storage), self._nodes
        names = [*(node.name for node in nodes.all), DRIVER]
        absent = nodes.ask(disk.absent_folders, probe, driver=True)
        if absent.failures:
            return disk.refused(absent.failures)
        try:
            writes = nodes.ask_each(disk.write, {name: (probe, name) for name in names})
            reads = nodes.ask(disk.read, probe, names, driver=True)
        finally:
            deletes = nodes.ask_each(disk.delete, {name: (probe, absent.values[name]) for name in names})
        failures = writes.failures or reads.failures or deletes.failures
        if failures:
            return disk.refused(failures)
        return disk.same_storage(storage.storage_path, writes.values, reads.values, deletes.values)

    def _disk(self) -> Verdict:
        if self._weights is None:
            return skipped("the model cannot be loaded, so its size is not known")
        weights, free = self._weights, disk.free_space(RunFolder.locate(self._config.run).storage_path)
        keep = self._config.checkpoint.keep
        return _of_all(self._rooms, lambda found: disk.enough_space(free, found, weights, keep))

    def _model(self) -> Verdict:
        config = self._config
        answers = self._nodes.ask(inputs.look_at_model, config.model, config.window.max_length, driver=True)
        cure = "--model.name must name a model that every node can load: a Hub id, shared storage or a package"
        if answers.failures:
            return failed(told(answers.failures), cure)
        millions = f"{(self._weights or 0) / 1e6:.1f} million weights"
        return passed(f"{config.model.name}, {millions}, is read everywhere")

    def _memory(self) -> Verdict:
        if self._weights is None:
            return skipped("the model cannot be loaded, so its size is not known")
        plan, needs = self._resources, {}
        for node in self._nodes.all:
            fitting = node.gpus if plan.use_gpu else node.cpus // plan.cpus_per_worker
            workers = min(plan.max_workers, fitting)
            # Beside a GPU only the weights while they are loaded, and a checkpoint's copy.
            copies = 4 * workers + disk.BYTES_PER_WEIGHT if plan.use_gpu else _BYTES_IN_TRAINING * workers
            needs[node.name] = float(copies * self._weights)
        return machine.memory({node.name: node.memory for node in self._nodes.all}, needs)

    def _split(self, name: str) -> Verdict:
        answers = self._data[name]
        return inputs.same_data(f"data.{name}", self._config.data, answers.values, answers.failures)

    def _object_store(self) -> Verdict:
        looks = [look for answers in self._data.values() for look in list(answers.values.values())[:1]]
        if len(looks) < len(self._data) or not all(look.files for look in looks):
            return skipped("how large the data are is not known")
        need = sum(look.tokenized for look in looks)
        stores = {node.name: node.object_store for node in self._nodes.all}
        return _of_all(self._rooms, lambda found: machine.object_store(found, stores, need))

    def _tracking_nodes(self) -> Verdict:
        if not tracking.is_server(self._config.tracking):
            return skipped("the record goes to no server")
        answers = self._nodes.ask(tracking.reach, self._config.tracking.store)
        return tracking.reached(len(answers.values), answers.failures)


def _of_all(answers: Answers[T], judge: Callable[[Mapping[str, T]], Verdict]) -> Verdict:
    """Judge what all nodes have answered, or tell which have not."""
    if answers.failures:
        return failed(told(answers.failures), "see the reason, and what `ray status` says of the node")
    return judge(answers.values)

"""All checks of a run, one after the other, each bounded in time and none stopping the others."""

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property

from qa_ray.config.fine_tuning import Config
from qa_ray.doctor import inputs, machine, outputs
from qa_ray.doctor.nodes import DRIVER, Answers, Nodes, answer, in_time
from qa_ray.doctor.verdict import Status, Verdict, failed, passed, share, skipped, told
from qa_ray.errors import UserError
from qa_ray.model.loading import count_weights
from qa_ray.runs.resources import Resources, choose, idle_note, plan_resources
from qa_ray.runs.resume import find_run
from qa_ray.storage.run_folder import RunFolder

Check = Callable[[], Verdict]

_PATIENCE_S = 120.0
"""Seconds that a node has for an answer: the first one imports torch and transformers, maybe from a network disk."""
_QUESTIONS = 10
"""Rounds of questions that a check puts at most, those to the driver counted by themselves."""


def examine(config: Config) -> Iterator[tuple[str, Verdict]]:
    """Yield each check's name and verdict for a run of `config` on the cluster that this process is connected to.

    Nothing that is written stays.
    """
    for name, check in _Examination(config, Nodes.joined(_PATIENCE_S)).checks():
        yield name, bounded(check, _QUESTIONS * _PATIENCE_S)


def bounded(check: Check, seconds: float) -> Verdict:
    """A check's verdict, whatever becomes of it."""
    outcome = in_time(lambda: answer(check, ()), seconds)
    if outcome is None:
        return failed(f"no answer within {seconds:g} s", "see whether the network or a disk hangs, and try again")
    verdict, problem = outcome
    return verdict or failed(problem or "", "")


class _Examination:
    """The checks, and what several of them need to know."""

    def __init__(self, config: Config, nodes: Nodes) -> None:
        self._config = config
        self._nodes = nodes

    def checks(self) -> list[tuple[str, Check]]:
        """In the order in which they are made: a node that does not answer the first is asked nothing more."""
        return [
            ("nodes", self._answering),
            ("versions", lambda: self._versions.judged(machine.same_versions)),
            ("code", lambda: self._nodes.ask(machine.code, driver=True).judged(machine.same_code)),
            ("workers", self._workers),
            ("devices", self._computing),
            ("storage", self._storage),
            ("disk", self._disk),
            ("model", self._model),
            ("training data", lambda: self._data("train")),
            ("validation", lambda: self._data("validation")),
            ("tracking", lambda: outputs.tracking(self._config.tracking)),
            ("Hub", lambda: outputs.publication(self._config.publish)),
        ]

    @cached_property
    def _versions(self) -> Answers[Mapping[str, str]]:
        return self._nodes.ask(machine.installed, driver=True)

    @cached_property
    def _gpus(self) -> dict[str, int]:
        """GPUs that Ray counts, by node."""
        return {node.name: node.gpus for node in self._nodes.all}

    @cached_property
    def _resources(self) -> Resources:
        """The workers that the run would get if they fit."""
        return choose(self._config.cluster, [node.cpus for node in self._nodes.all], sum(self._gpus.values()))

    @cached_property
    def _devices(self) -> Answers[machine.Devices]:
        return self._nodes.ask(machine.devices, self._config.train.precision, self._resources.use_gpu)

    @cached_property
    def _weights(self) -> int | None:
        """Number of the model's weights; None where it cannot be loaded, which the check of the model tells."""
        try:
            return count_weights(self._config.model)
        except UserError:
            return None

    def _answering(self) -> Verdict:
        """Whether every node answers; those that do not are asked nothing more."""
        answers = self._versions
        silent = {name: message for name, message in answers.failures.items() if name != DRIVER}
        self._nodes = Nodes(tuple(node for node in self._nodes.all if node.name not in silent), _PATIENCE_S)
        self._versions = Answers(answers.values, {})
        if silent:
            return failed(told(silent), "see whether qa_ray is installed there, and what `ray status` says of the node")
        names = list(self._gpus)
        return passed(f"{len(names)} answer{'s' * (len(names) == 1)}: {share(names)}")

    def _workers(self) -> Verdict:
        plan = plan_resources(self._config.cluster)
        number = f"{plan.min_workers} to {plan.max_workers}" if plan.elastic else str(plan.max_workers)
        idle = idle_note(plan, self._config.batch.size)
        return passed(
            f"{number} with {plan.cpus_per_worker} CPU{' and a GPU' * plan.use_gpu} each{f'; {idle}' if idle else ''}"
        )

    def _computing(self) -> Verdict:
        wanted = self._config.train.precision
        return self._devices.judged(lambda found: machine.same_devices(found, self._gpus, wanted))

    def _storage(self) -> Verdict:
        verdict = outputs.same_storage(self._nodes, RunFolder.locate(self._config.run).storage_path)
        if verdict.status is not Status.PASSED:
            return verdict
        run = find_run(self._config)
        state = "is finished" if run.finished else "goes on from where it stopped" if run.resumed else "is new"
        return passed(f"{verdict.seen}; the run {run.folder.name} {state}")

    def _disk(self) -> Verdict:
        weights, keep = self._weights, self._config.checkpoint.keep
        if weights is None:
            return skipped("the model cannot be loaded, so its size is not known")
        free = outputs.free_space(RunFolder.locate(self._config.run).storage_path)
        return self._nodes.ask(outputs.temporary).judged(lambda found: outputs.enough_space(free, found, weights, keep))

    def _model(self) -> Verdict:
        config = self._config
        answers = self._nodes.ask(inputs.look_at_model, config.model, config.window.max_length, driver=True)
        gpus = {name: one.gpus for name, one in self._devices.values.items() if one.gpus and self._resources.use_gpu}
        memory = {name: min(num_bytes for _, num_bytes in there) for name, there in gpus.items()}
        return answers.judged(lambda _: inputs.model_fits(config.model.name, self._weights or 0, memory))

    def _data(self, split: str) -> Verdict:
        data, place = self._config.data, getattr(self._config.data, split)
        if data.field_of(split) != split:
            return passed(f"{100 * (data.validation_share or 0):.3g}% of the contexts of the training data")
        if data.hub is None:
            answers = self._nodes.ask(inputs.look_at_files, data, place, driver=True)
        else:
            # It is loaded on the driver and travels through the object store.
            answers = self._nodes.ask_each(inputs.look_at_hub, {DRIVER: (data, place)})
        return answers.judged(inputs.same_data)

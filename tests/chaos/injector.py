"""Trains, injects the planned faults, and watches what becomes of the runs."""

import json
import random
import shutil
import sys
import time
from pathlib import Path
from signal import SIGKILL
from typing import Any

import psutil
from mlflow_server import MlflowServer
from ray_runs import metrics_of, outcome_of

from chaos.checkpoints import damage_newest, is_whole, next_loaded, under_way
from chaos.cluster import Nodes
from chaos.record import due, recorded
from chaos.report import Kill, Moment, Report, RunEnd, Setting, Victim
from chaos.run import Job, job_command, make_inputs, planned, trained
from qa_ray.errors import TrainingError
from qa_ray.storage.run_folder import CHECKPOINTS, TRACKING, checkpoint_name

# Half of the kills fall at once when their moment is seen, which may be short; half at random within so many seconds.
_SPANS = {Moment.START: 12.0, Moment.STEPS: 2.0, Moment.WRITING: 0.03, Moment.STORING: 0.05, Moment.EVALUATION: 1.0}
_SECONDS_BETWEEN_LOOKS = 0.002
# What a killed group has reported may arrive for so long; a new one takes longer to begin.
_LAG_S = 1.5
# A tracking server is away for so long, at least and at most.
_AWAY_S = (1.0, 8.0)
# An elastic run trains a while before it grows.
_ELASTIC_EPOCHS = 4
# A run that shows no step for so long hangs.
_PATIENCE_S = 300.0


class FaultInjector:
    """Trains, kills and compares.

    Attributes:
        report: what happened so far.
    """

    def __init__(self, place: Path, nodes: Nodes, kills: list[Kill], *, epochs: int, seed: int) -> None:
        """Plan to kill.

        Args:
            place: folder of the runs and their inputs; temporary files are in its folder `tmp`.
            nodes: the cluster.
            kills: what is to be done, about in this order.
            epochs: epochs of each run.
            seed: decides on what is random within a kill.
        """
        self.report = Report()
        self._place, self._nodes, self._epochs = place, nodes, epochs
        self._rng = random.Random(seed + 1)
        self._waiting = list(kills)
        self._pending: list[Kill] = []
        self._groups_seen = self._newest = 0
        self._expected: int | None = None
        self._workers: list[psutil.Process] = []
        self._due: float | None = None
        self._setting = Setting.FIXED
        # With faults of memory, all devices hold little: also those of the reference run.
        self._shortage = place / "shortage"
        self._short = any(kill.victim is Victim.MEMORY for kill in kills)
        self._server = MlflowServer(place)
        self._back: float | None = None
        make_inputs(place)

    def work(self) -> None:
        """Train a reference run, and then others into which faults are injected until all kills are done."""
        reference, planned = self._train_reference(), len(self._waiting)
        try:
            while self._waiting:
                self._setting = self._waiting[0].victim.setting
                self._run = self._place / "runs" / f"chaos-{len(self.report.runs) + 1}"
                self._nodes.fill()
                failure = self._train() or self._tell_what_is_owed()
                self.report.runs.append(self._compared(failure, reference))
                shutil.rmtree(self._run, ignore_errors=True)
                kills, runs = len(self.report.kills), len(self.report.runs)
                print(f"{kills} of {planned} kills, {runs} runs", file=sys.stderr, flush=True)
        finally:
            self._server.stop(SIGKILL)

    def _train_reference(self) -> dict[str, Any]:
        self._run = self._place / "runs" / "reference"
        self._start()
        if self._job.process.wait():
            raise TrainingError("the reference run failed: " + " / ".join(self._job.last_words()[-5:]))
        if trained(self._run) != planned(self._words()):
            raise TrainingError("the reference run itself did not train the batches of the plan")
        return outcome_of(self._run) | {"record": due(metrics_of(self._run))}

    def _compared(self, failure: list[str], reference: dict[str, Any]) -> RunEnd:
        if self._setting is Setting.ELASTIC:
            foretold = planned(self._words())
            return RunEnd.of(self._run, failure, foretold, setting=self._setting, outcome=trained)
        if self._setting is Setting.TRACKED:
            uri = self._server.uri
            return RunEnd.of(
                self._run,
                failure,
                reference,
                setting=self._setting,
                outcome=lambda run: outcome_of(run) | {"record": recorded(uri, run)},
            )
        return RunEnd.of(self._run, failure, {name: reference[name] for name in reference if name != "record"})

    def _words(self) -> list[str]:
        elastic = self._setting is Setting.ELASTIC
        server = self._server.uri if self._setting is Setting.TRACKED else None
        epochs = self._epochs * _ELASTIC_EPOCHS if elastic else self._epochs
        return job_command(self._place, self._run.name, self._nodes.address, epochs, server=server, elastic=elastic)

    def _start(self) -> None:
        if self._setting is Setting.TRACKED:
            self._server.start()  # a run begins with it or not at all
        self._job = Job(self._words(), self._place, self._shortage if self._short else None)
        self._groups_seen = 0
        self._moved_at = time.time()

    def _tell_what_is_owed(self) -> list[str]:
        """Have the same command send what a server that was away at the end of a run lacks."""
        if self._setting is not Setting.TRACKED:
            return []
        self._server.start()
        if not json.loads((self._run / TRACKING).read_text(encoding="utf-8"))["owed"]:
            return []
        self._start()
        return ["the same command failed", *self._job.last_words()] if self._job.process.wait() else []

    def _train(self) -> list[str]:
        """Train a run and kill until it ends; returns why it did not end well, if so."""
        self._newest, self._expected, self._back = 0, None, None
        self._shortage.unlink(missing_ok=True)
        self._start()
        while self._look():
            if time.time() - self._moved_at > _PATIENCE_S:
                self._job.kill()
                return self._give_up(f"no step for {_PATIENCE_S:g} s, killed")
            if self._back is not None and time.time() >= self._back:
                self._server.start()
                self._back = None
            moment = self._moment()
            kill = self._next(moment)
            if kill is not None and self._is_due(kill, moment):
                self._strike(kill)
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        if self._job.process.returncode:
            return self._give_up(f"the job ended with {self._job.process.returncode}")
        if self._shortage.exists():  # no window came alone any more
            self._shortage.unlink()
            self._waiting.append(self._pending.pop())
            self.report.kills.pop()
        self._recover(None)
        return []

    def _give_up(self, reason: str) -> list[str]:
        self._pending.clear()
        return [reason, *self._job.last_words()]

    def _look(self) -> bool:
        """Notice groups of workers that began, and steps that they made; returns whether the job is still there."""
        alive, groups = self._job.poll(), self._job.groups
        for group in groups[self._groups_seen :]:
            self._moved_at = group.seen
            self.report.steps_again += max(self._newest - group.step, group.before - group.step, 0)
            self._newest = group.step
            self._check_loaded(group.step)
            self._workers = self._nodes.workers()
        self._groups_seen = len(groups)
        if groups and self._job.step > self._newest:
            self._newest, self._moved_at = self._job.step, time.time()
        if self._pending and self._pending[-1].victim.lasts and self._went_on(self._pending[-1]):
            self._recover(self._job.stepped_at)
        if self._pending and groups and groups[-1].first_step and groups[-1].seen > self._pending[-1].at + _LAG_S:
            self._recover(groups[-1].first_step)
        return alive

    def _went_on(self, kill: Kill) -> bool:
        """Whether a fault that no worker dies of was met, and a step made since."""
        return self._job.stepped_at > kill.at and not self._shortage.exists()

    def _check_loaded(self, step: int) -> None:
        """Look at the checkpoint that a group went on from; nothing was loaded at step 0."""
        whole = is_whole(self._run / CHECKPOINTS / checkpoint_name(step)) if step else None
        self.report.loaded += step > 0
        self.report.loaded_whole += whole is True
        self.report.loaded_damaged += whole is False
        if self._expected is not None:
            self.report.passed_over += step != self._expected
            self._expected = None

    def _recover(self, first_step: float | None) -> None:
        """Count what is pending as recovered, by a step or, without one, by the end of the run."""
        for kill in self._pending:
            kill.recovered = True
        if self._pending and first_step is not None:
            self._pending[-1].seconds = first_step - self._pending[-1].at
        self._pending.clear()

    def _moment(self) -> Moment:
        """What the run is seen to do now."""
        groups = self._job.groups
        if self._pending or not groups:
            return Moment.START
        if stage := under_way(self._run, self._place / "tmp"):
            return Moment(stage)
        if self._job.evaluating:
            return Moment.EVALUATION
        return Moment.STEPS if groups[-1].first_step else Moment.START

    def _next(self, moment: Moment) -> Kill | None:
        """The next kill; one in the start waits for the next start, and all wait for what no worker dies of."""
        if self._back is not None or (self._pending and self._pending[-1].victim.lasts):
            return None
        mine = [kill for kill in self._waiting if kill.victim.setting is self._setting]
        fitting = (kill for kill in mine if moment is Moment.START or kill.moment is not Moment.START)
        return next(fitting, None)

    def _is_due(self, kill: Kill, moment: Moment) -> bool:
        """Whether the moment of a kill is there, and its random instant within it has come."""
        if moment is not kill.moment:
            self._due = None
            return False
        if self._due is None:
            self._due = time.time() + max(0.0, self._rng.uniform(-_SPANS[moment], _SPANS[moment]))
        return time.time() >= self._due

    def _strike(self, kill: Kill) -> None:
        kill.at = time.time()
        if kill.victim is Victim.WORKER and not self._kill_worker(kill.moment):
            self._due = kill.at + self._rng.uniform(0, 3)  # they are not there yet
            return
        self._due, self._moved_at, self._workers = None, kill.at, []
        self._waiting.remove(kill)
        self._pending.append(kill)
        self.report.kills.append(kill)
        if kill.victim is Victim.NODE:
            self._nodes.kill(self._rng.randrange(len(self._nodes)))
        elif kill.victim is Victim.JOB:
            self._job.kill()
            self._look()
            self._damage(kill)
            self._start()
        elif kill.victim is Victim.MEMORY:
            self._shortage.touch()
        elif kill.victim is Victim.SERVER:
            self._server.stop(SIGKILL)
            self._back = kill.at + self._rng.uniform(*_AWAY_S)
        elif kill.victim is Victim.SIZE and len(self._nodes) == 1:
            self._nodes.fill()
        elif kill.victim is Victim.SIZE:
            self._nodes.kill(self._rng.randrange(len(self._nodes)), replace=False)

    def _kill_worker(self, moment: Moment) -> bool:
        # Looking for them takes longer than some moments last.
        workers = self._nodes.workers() if moment is Moment.START else self._workers
        try:
            self._rng.choice(workers).kill()
        except (IndexError, psutil.NoSuchProcess):
            self._workers = self._nodes.workers()
            return False
        return True

    def _damage(self, kill: Kill) -> None:
        """Damage the newest checkpoint once the killed job's workers, which live on for a while, are gone."""
        if kill.damage is None:
            return
        while self._nodes.workers() and time.time() - kill.at < _PATIENCE_S:
            time.sleep(0.1)
        self.report.damaged += damage_newest(self._run, kill.damage, self._rng)
        # Nobody can write another one before the next group begins, and that has to go on from here.
        self._expected = next_loaded(self._run, self._place / "tmp")

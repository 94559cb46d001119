"""Trains on the chaos benchmark's cluster, kills at the planned moments, and watches what becomes of it."""

import random
import shutil
import sys
import time
from collections import deque
from pathlib import Path

import psutil  # type: ignore[import-untyped]
from tqdm import tqdm

from benchmarking.chaos_cluster import Nodes
from benchmarking.chaos_job import Job, Traces
from benchmarking.chaos_outcome import Expected, Outcome, damage_newest, is_whole, newest_whole
from benchmarking.chaos_report import Kill, Moment, Report, RunEnd, Victim
from benchmarking.comparison import Material
from qa_ray.cli import parse
from qa_ray.errors import TrainingError
from qa_ray.storage.layout import CHECKPOINTS

# A kill falls at random within so many seconds since its moment is seen.
_SPANS = {Moment.START: 12.0, Moment.STEPS: 2.0, Moment.WRITE: 0.03, Moment.UPLOAD: 0.05, Moment.EVALUATION: 1.0}
_SECONDS_BETWEEN_LOOKS = 0.002
# What a killed group has sent may be shown for so long; a new one takes longer to begin.
_LAG_S = 0.7
# A run that shows no step for so long hangs.
_PATIENCE_S = 300.0


class Disturber:
    """Trains, kills and compares.

    Attributes:
        report: what happened so far.
        cut_short: whether the time was up before all kills were done.
    """

    def __init__(self, place: Path, nodes: Nodes, arguments: list[str], kills: list[Kill], *, seed: int) -> None:
        """Plan to kill.

        Args:
            place: the folder that `use_folder` was given.
            nodes: the cluster.
            arguments: the command line of a run in PLACE/runs, but for its name.
            kills: what is to be done, in this order.
            seed: decides on what is random within a kill.
        """
        self.report = Report()
        self.cut_short = False
        self._rng = random.Random(seed + 1)
        self._runs = place / "runs"
        self._place = place
        self._nodes = nodes
        self._arguments = arguments
        self._waiting = deque(kills)
        self._pending: list[Kill] = []
        self._job: Job | None = None
        self._groups_seen = 0
        self._newest = 0
        self._workers: list[psutil.Process] = []
        self._due: float | None = None
        self._moved_at = 0.0

    def work(self, until: float) -> None:
        """Train undisturbed once, then disturbed until all kills are done or the time is up."""
        calm, expected = self._train_calm()
        with tqdm(total=len(self._waiting), desc="kills", file=sys.stderr) as bar:
            number = 0
            while self._waiting and not self.cut_short:
                number += 1
                name = f"chaos-{number}"
                bar.set_postfix_str(name)
                notes = self._disturb(name, bar, until)
                self.report.runs.append(RunEnd.of(self._runs / name, notes, calm, expected))
                shutil.rmtree(self._runs / name, ignore_errors=True)

    def end(self) -> None:
        """End the job under way, if there is one."""
        if self._job is not None:
            self._job.kill()

    def _command(self, name: str) -> list[str]:
        script = Path(__file__).parents[1] / "train.py"
        return [sys.executable, str(script), *self._arguments, "--run.name", name]

    def _train_calm(self) -> tuple[Outcome, Expected]:
        self._start("calm")
        assert self._job is not None
        while not self._job.ended:
            time.sleep(0.1)
        if self._job.process.returncode:
            raise TrainingError("the undisturbed run failed: " + " / ".join(self._job.screen.said[-5:]))
        config, _ = parse(self._arguments)
        lengths = Material.read(config, str(config.data.train)).collator.windows.length
        expected = Expected.plan(config, lengths)
        calm = Outcome.read(self._runs / "calm")
        if calm.wrong_windows(expected):
            raise TrainingError("the undisturbed run itself did not train what the batch plan says")
        return calm, expected

    def _start(self, name: str) -> None:
        self._job = Job(self._command(name))
        self._groups_seen = 0
        self._moved_at = time.monotonic()

    def _disturb(self, name: str, bar: tqdm, until: float) -> list[str]:
        """Train a run and kill until it ends; returns what is worth knowing if it did not end well."""
        self._newest = 0
        self._start(name)
        while True:
            job = self._job
            assert job is not None
            ended = job.ended
            self._look(job, self._runs / name)
            if ended:
                break
            if time.monotonic() - self._moved_at > _PATIENCE_S:
                job.kill()
                return self._give_up(f"no step for {_PATIENCE_S:g} s, killed", job)
            self.cut_short |= bool(self._waiting) and time.monotonic() > until
            kill = None if self.cut_short else self._next(job)
            if kill is not None and self._is_due(kill, job, name):
                self._strike(kill, job, name)
                bar.update(len(self.report.kills) - bar.n)
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        if job.process.returncode:
            return self._give_up(f"the job ended with {job.process.returncode}", job)
        self._recover(None)
        return []

    def _give_up(self, reason: str, job: Job) -> list[str]:
        self._pending.clear()
        return [reason, *job.screen.said[-30:]]

    def _look(self, job: Job, run: Path) -> None:
        """Notice groups of workers that began, and steps that they made."""
        groups = job.screen.groups
        for group in groups[self._groups_seen :]:
            self._moved_at = time.monotonic()
            if group.checkpoint:
                whole = is_whole(run / CHECKPOINTS / group.checkpoint)
                self.report.resumes += 1
                self.report.damaged_loaded += whole is False
                self.report.unverified += whole is None
            self._newest = max(self._newest, group.before)
            for kill in self._pending:
                if not kill.followed:
                    kill.resumed, kill.followed = group.checkpoint, True
            if self._pending:
                self._pending[-1].again += max(self._newest - group.resumed, 0)
            self._newest = group.resumed
            self._workers = self._nodes.workers()
        self._groups_seen = len(groups)
        if groups and job.screen.step > self._newest:
            self._newest, self._moved_at = job.screen.step, time.monotonic()
        if self._pending and groups and groups[-1].began > self._pending[-1].at + _LAG_S:
            self._recover(groups[-1].first_step)

    def _recover(self, first_step: float | None) -> None:
        """Count what is pending as recovered, by a step or, without one, by the end of the run."""
        if first_step is None and self._job is not None and not self._job.ended:
            return
        for kill in self._pending:
            kill.recovered = True
            kill.seconds = None if first_step is None else first_step - kill.at
        self._pending.clear()

    def _next(self, job: Job) -> Kill | None:
        """The next kill; one in the start is put off where the run has started already."""
        if not self._waiting:
            return None
        if self._waiting[0].moment is Moment.START and self._moment(job) is not Moment.START:
            later = next((kill for kill in self._waiting if kill.moment is not Moment.START), None)
            if later is None:
                return None
            self._waiting.remove(later)
            self._waiting.appendleft(later)
        return self._waiting[0]

    def _moment(self, job: Job, traces: Traces | None = None) -> Moment:
        """What the run is seen to do now."""
        screen = job.screen
        if self._pending:
            return Moment.START
        if not screen.groups:
            return Moment.EVALUATION if screen.evaluating else Moment.START
        if screen.groups[-1].first_step is None:
            return Moment.START
        under_way = traces.under_way() if traces else None
        if under_way and under_way.evaluated:
            screen.evaluating = False  # the bar lags
        if under_way and under_way.stored:
            return Moment.UPLOAD
        if under_way and under_way.written:
            return Moment.WRITE
        return Moment.EVALUATION if screen.evaluating else Moment.STEPS

    def _is_due(self, kill: Kill, job: Job, name: str) -> bool:
        """Whether the moment of a kill is there, and its random instant within it has come."""
        if self._moment(job, Traces.of(self._place, self._runs / name)) is not kill.moment:
            self._due = None
            return False
        now = time.monotonic()
        if self._due is None:
            self._due = now + self._rng.uniform(0, _SPANS[kill.moment])
        if now < self._due:
            return False
        if kill.victim is Victim.WORKER:
            if kill.moment is Moment.START or not self._workers:
                self._workers = self._nodes.workers()
            if not self._workers:
                self._due = now + self._rng.uniform(0, 3)  # they are not there yet
                return False
        self._due = None
        return True

    def _strike(self, kill: Kill, job: Job, name: str) -> None:
        kill.run, kill.at, kill.step = name, time.monotonic(), self._newest
        if kill.victim is Victim.WORKER:
            try:
                self._rng.choice(self._workers).kill()
            except psutil.NoSuchProcess:
                self._workers = []
                return  # nobody was hit: the next look finds others
        for earlier in self._pending:
            earlier.hit_again = True
        self._waiting.popleft()
        self.report.kills.append(kill)
        self._pending.append(kill)
        self._moved_at = kill.at
        self._workers = []
        if kill.victim is Victim.NODE:
            self._nodes.kill(self._rng.randrange(len(self._nodes)))
        elif kill.victim is Victim.DRIVER:
            self._restart(kill, job, name)

    def _restart(self, kill: Kill, job: Job, name: str) -> None:
        """Kill the job and start it again, over a damaged checkpoint if that is planned."""
        job.kill()
        self._look(job, self._runs / name)
        # The bar lags, and will not catch up any more.
        self._newest = max(self._newest, Traces.of(self._place, self._runs / name).newest_step())
        if kill.damage is not None:
            self._damage(kill, self._runs / name)
        self._start(name)

    def _damage(self, kill: Kill, run: Path) -> None:
        """Damage the newest checkpoint once the killed job's workers, which live on for a while, are gone."""
        assert kill.damage is not None
        while self._nodes.workers() and time.monotonic() - kill.at < _PATIENCE_S:
            time.sleep(0.1)
        kill.damaged = damage_newest(run, kill.damage, self._rng)
        kill.known = True
        for pending in self._pending:
            pending.newest = newest_whole(run)

"""Sweeps for tests: trials as a sweep's folder would hold them."""

from qa_ray.config.fine_tuning import TrainConfig
from qa_ray.config.operation import RunConfig
from qa_ray.config.policies import BestBy
from qa_ray.tuning.options import SweepConfig, TuneConfig
from qa_ray.tuning.trials import Objective, Status, Sweep, TrialRecord

SPACE = ("optim.learning_rate=loguniform(1e-5, 1e-3)", "window.stride=choice(32, 64, 128)")
F1 = Objective(BestBy.F1)


def trial(
    number: int,
    rate: float,
    stride: int,
    *f1: float,
    status: Status = Status.FINISHED,
    reason: str | None = None,
) -> TrialRecord:
    """A trial that has scored `f1` after its epochs."""
    return TrialRecord(
        number,
        {"optim.learning_rate": rate, "window.stride": stride},
        status,
        reason,
        {epoch: {"eval_f1": score, "eval_exact_match": score - 10} for epoch, score in enumerate(f1, start=1)},
        began=1000.0 + 100 * number,
        ended=1090.0 + 100 * number,
        seconds=90.0,
    )


def sweep(*trials: TrialRecord, space: tuple[str, ...] = SPACE, tune: TuneConfig | None = None) -> Sweep:
    """A sweep of two epochs with some trials."""
    config = SweepConfig(
        space=space,
        tune=tune or TuneConfig(),
        train=TrainConfig(epochs=2),
        run=RunConfig(name="night", storage_path="/runs"),
    )
    return Sweep(config, list(trials))


def night() -> Sweep:
    """A sweep in which everything happens."""
    return sweep(
        trial(0, 2e-4, 128, 30.0, 40.0),
        trial(1, 4e-4, 32, 35.0, 55.0),
        trial(2, 2e-5, 64, 10.0, status=Status.STOPPED, reason="after epoch 1: not among the best"),
        trial(3, 5e-4, 64, 33.0, 50.0),
        trial(4, 1e-5, 32, 5.0, status=Status.STOPPED, reason="after epoch 1: not among the best"),
        trial(5, 1e-3, 128, status=Status.FAILED, reason="TrainingError: <the loss> is no number"),
        trial(6, 3e-4, 128, status=Status.PRUNED, reason="window.stride=128 leaves no room"),
    )

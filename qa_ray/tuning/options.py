"""The knobs of a sweep, beside those of the runs that it is made of."""

import dataclasses
from dataclasses import dataclass, field
from enum import StrEnum

from optuna.distributions import FloatDistribution

from qa_ray.config.fine_tuning import Config
from qa_ray.errors import require
from qa_ray.tuning.space import read_space, written

SEED = "train.seed"
"""The field in which repeats differ."""


class SamplerKind(StrEnum):
    """How the next point of the search space is chosen."""

    RANDOM = "random"
    """Each independently of the others."""
    GRID = "grid"
    """All combinations of choices and ranges of whole numbers."""
    OPTUNA = "optuna"
    """Optuna's tree-structured Parzen estimator: near the points that scored well."""


class SchedulerKind(StrEnum):
    """Which trials end before their last epoch."""

    ASHA = "asha"
    """Asynchronous successive halving: those that score low among the trials that came as far."""
    MEDIAN = "median"
    """The median stopping rule: those whose best score is below the median of what others scored on average so far."""
    NONE = "none"


@dataclass(frozen=True, kw_only=True, slots=True)
class TuneConfig:
    """How a search space is searched."""

    num_trials: int = 8
    """Trials in all; more than before goes on with a sweep that was finished."""
    sampler: SamplerKind = SamplerKind.OPTUNA
    """How the next trial's values are chosen."""
    scheduler: SchedulerKind = SchedulerKind.ASHA
    """Which trials are stopped early."""
    grace: float = 1.0
    """Epochs, or a part of one, that every trial is given before it may be stopped; evaluate.per_epoch measures within
    epochs."""
    reduction: int = 2
    """ASHA lets about one of so many trials go on at each rung; rungs are at grace, grace x reduction, ... epochs."""
    seed: int = 0
    """Seed of the sampler."""
    repeats: int = 1
    """Seeds, the run's own and those after it, with which the best trials are trained; their means decide."""
    finalists: int = 3
    """How many of the best trials that is."""
    include_default: bool = True
    """The first trial has the configuration's own values, to compare with."""
    max_failures: int = 2
    """Times that a trial that fails is tried again; it goes on from its last checkpoint."""
    max_concurrent: int | None = None
    """Most trials at once; without a number, as many as the cluster has room for."""
    hours: float | None = None
    """Ends the sweep after so many hours; trials under way are saved, and the same command goes on with them for as
    long again."""
    keep_checkpoints: bool = False
    """Keeps the checkpoints of trials that have ended; their models are kept anyway, and so are the checkpoints of a
    trial that was lost too often."""

    def __post_init__(self) -> None:
        for name in ("num_trials", "repeats", "finalists"):
            require(getattr(self, name) >= 1, f"tune.{name}={getattr(self, name)} must be at least 1")
        require(self.grace > 0, f"tune.grace={self.grace:g} must be above 0")
        require(self.reduction >= 2, f"tune.reduction={self.reduction} must be at least 2")
        require(self.seed >= 0, f"tune.seed={self.seed} must not be negative")
        require(self.max_failures >= 0, f"tune.max_failures={self.max_failures} must not be negative")
        require(self.hours is None or self.hours > 0, f"tune.hours={self.hours} must be above 0")
        most = self.max_concurrent
        require(most is None or most >= 1, f"tune.max_concurrent={most} must be at least 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepConfig(Config):
    """A sweep: one complete fine-tuning run, and what is varied in it."""

    space: tuple[str, ...] = ()
    """Fields and where they are searched, such as optim.learning_rate=loguniform(1e-5,5e-4)
    window.stride=choice(32,64,128) batch.size=randint(8,32); or the names of .toml or .json files that hold them."""
    tune: TuneConfig = field(default_factory=TuneConfig)

    def __post_init__(self) -> None:
        Config.__post_init__(self)
        require(
            self.tune.grace <= self.train.epochs,
            f"tune.grace={self.tune.grace:g}: no trial comes so far, with train.epochs={self.train.epochs}",
        )
        # A mistake is told before a cluster is started.
        space = read_space(self.space)
        require(
            self.tune.repeats == 1 or SEED not in space,
            f"tune.repeats={self.tune.repeats}: --space searches {SEED} already, which repeats would change",
        )
        for field_name, domain in space.items():
            require(
                self.tune.sampler is not SamplerKind.GRID or not isinstance(domain, FloatDistribution),
                f"--space {field_name}={written(domain)}: a grid needs single values: write choice(VALUE, ...), or use "
                "another --tune.sampler",
            )

    @property
    def base(self) -> Config:
        """The run that is varied."""
        return Config(**{item.name: getattr(self, item.name) for item in dataclasses.fields(Config)})


def default_space(config: Config) -> tuple[str, ...]:
    """A space around a recipe: five times less and more than its learning rate, and strides that its window allows."""
    rate, length = config.optim.learning_rate, config.window.max_length
    strides = sorted({length // 12, length // 6, length // 3, config.window.stride})
    return (
        f"optim.learning_rate=loguniform({rate / 5:g}, {rate * 5:g})",
        f"window.stride=choice({', '.join(map(str, strides))})",
    )


def as_sweep(recipe: Config) -> SweepConfig:
    """A recipe with the space that is searched if no other is named."""
    parts = {item.name: getattr(recipe, item.name) for item in dataclasses.fields(Config)}
    return SweepConfig(**parts, space=default_space(recipe))

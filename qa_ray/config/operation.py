"""How a run is operated: its cluster, its folder, its checkpoints, its record and its publication.

None of it changes what is computed: all of it may change when a run goes on.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from qa_ray.config.policies import Resume
from qa_ray.errors import require
from qa_ray.locations import SECRET_RULE, check_repo_id, holds_secret

_REF = re.compile(r"\w[\w.-]*(/\w[\w.-]*)*")


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterConfig:
    """The Ray cluster and the run's share of it."""

    address: str | None = None
    """Ray cluster to join; without one, the cluster this job was submitted to, or a new local one."""
    local_cpus: int | None = None
    """CPU cores of a new local cluster; without a number, all that this process may use."""
    num_workers: int | tuple[int, int] | None = None
    """Training workers, or the fewest and the most of an elastic run; without a number, one per GPU of the cluster or,
    without GPUs, two CPU workers, or one where there are fewer than four cores."""
    cpus_per_worker: int | None = None
    """CPU cores reserved for each worker, and threads that it computes with; without a number, one beside a GPU, or
    an equal share of all."""
    use_gpu: bool | None = None
    """Gives each worker a GPU; without a word, if the cluster has any."""
    autoscaling: bool = False
    """The cluster adds nodes on demand: waits for workers that do not fit yet instead of refusing them."""
    elastic_interval_s: float = 60.0
    """Seconds between two looks whether an elastic run can have more workers."""
    collective_timeout_s: float = 600.0
    """Seconds that workers wait for each other in a step, an evaluation or a checkpoint, before they start again from
    the last one: above what the slowest of them takes, also to load the model."""
    max_failures: int = 5
    """Lost workers after which a run ends instead of going on from its last checkpoint; -1 never ends it. Nodes that
    are taken away with a warning do not count."""

    def __post_init__(self) -> None:
        for name in ("local_cpus", "cpus_per_worker"):
            number = getattr(self, name)
            require(number is None or number >= 1, f"cluster.{name}={number} must be at least 1")
        fewest, most = self.worker_range or (1, 1)
        require(1 <= fewest <= most, f"cluster.num_workers={self.num_workers} must be at least 1, the fewest first")
        require(self.elastic_interval_s > 0, f"cluster.elastic_interval_s={self.elastic_interval_s} must be above 0")
        timeout = self.collective_timeout_s
        require(timeout > 0, f"cluster.collective_timeout_s={timeout} must be above 0")
        require(self.max_failures >= -1, f"cluster.max_failures={self.max_failures} must be -1 or more")

    @property
    def worker_range(self) -> tuple[int, int] | None:
        """The fewest and the most workers; None where the cluster decides."""
        number = self.num_workers
        return (number, number) if isinstance(number, int) else number


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """The run's name and place."""

    name: str | None = None
    """Name of the run and of its folder; without one, the recipe's name, the time and some letters."""
    storage_path: str = "runs"
    """Folder or URI (s3://, gs://) under which runs are stored; seen by every node of a cluster."""
    resume: Resume = Resume.IF_AVAILABLE
    """What happens where a run of this name exists: it goes on, must go on, or is left alone."""

    def __post_init__(self) -> None:
        require(bool(self.storage_path), "run.storage_path is empty: name a folder or a URI")
        require(not holds_secret(self.storage_path), f"run.storage_path {SECRET_RULE}")
        name = self.name
        require(
            name is None or (name not in ("", ".", "..") and not set(name) & set("/\\:?#")),
            f"run.name={name!r} must be a plain folder name, without / \\ : ? #",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointConfig:
    """When a run is saved, and how many checkpoints are kept. One is always made at an epoch's end."""

    every_steps: int | None = None
    """Optimizer steps between two checkpoints."""
    every_minutes: float | None = 10.0
    """Minutes between two checkpoints."""
    keep: int = 2
    """Newest checkpoints that are kept, besides the best one."""

    def __post_init__(self) -> None:
        for name in ("every_steps", "every_minutes"):
            number = getattr(self, name)
            require(number is None or number > 0, f"checkpoint.{name}={number} must be above 0")
        require(self.keep >= 1, f"checkpoint.keep={self.keep} must be at least 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackingConfig:
    """The MLflow record of the run."""

    enabled: bool = True
    """Records the run in MLflow."""
    uri: str | None = None
    """MLflow tracking server; without one, MLFLOW_TRACKING_URI or else the local file mlflow.db."""
    experiment: str = "qa_ray"
    """MLflow experiment that the run belongs to."""
    log_model: bool = True
    """Also logs the best model, so that MLflow can load and serve it."""
    registered_model: str | None = None
    """Name in MLflow's registry under which the logged model becomes a version; the alias champion moves to it if it is
    better on the same validation data."""
    system_metrics_every_s: float | None = None
    """Seconds between two looks at each node's CPU, memory, disk, network and GPU use, recorded as MLflow's system
    metrics; without a number, none is recorded."""

    @property
    def store(self) -> str:
        """Address of the server, or of the local file."""
        return self.uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path('mlflow.db').resolve()}"

    def __post_init__(self) -> None:
        every = self.system_metrics_every_s
        require(every is None or every > 0, f"tracking.system_metrics_every_s={every} must be above 0")
        require(self.uri is None or not holds_secret(self.uri), f"tracking.uri {SECRET_RULE}")
        require(
            self.registered_model is None or (self.log_model and bool(self.registered_model)),
            f"tracking.registered_model={self.registered_model!r} must be a name, and needs tracking.log_model",
        )


@dataclass(frozen=True, kw_only=True)
class PublishOptions:
    """Where on the Hugging Face Hub a model goes, and as what."""

    repo_id: str | None = None
    """USER/NAME on the Hub; without USER it is the token's owner, without anything the run's name."""
    private: bool = True
    """Only you, or your organisation, see a repository that is made."""
    revision: str | None = None
    """Branch that takes the model; made if it is not there."""
    tag: str | None = None
    """Tag of the commit, such as v1."""
    license: str | None = None
    """Licence by the Hub's name for it, such as apache-2.0; the base model's and the data's own terms may bind you."""
    benchmark_task: str | None = None
    """Task in the eval.yaml of the Hub data set `data.hub`: F1 is then given as a result for its leaderboard too."""

    _prefix: ClassVar[str] = "--"
    """Stands before a field's name on the command line."""

    def __post_init__(self) -> None:
        if self.repo_id is not None:
            check_repo_id(self.repo_id, self.option("repo_id"))
        for name in ("revision", "tag"):
            ref = getattr(self, name)
            require(
                ref is None or (_REF.fullmatch(ref) is not None and ".." not in ref),
                f"{self.option(name)}={ref!r} must be a name such as v1: letters, digits and . - _ /",
            )
        for name in ("license", "benchmark_task"):
            require(getattr(self, name) != "", f"{self.option(name)} is empty")

    def option(self, name: str) -> str:
        """How a field is written on the command line."""
        return self._prefix + name.replace("_", "-")


@dataclass(frozen=True, kw_only=True)
class PublishConfig(PublishOptions):
    """Where on the Hugging Face Hub the best model goes, if anywhere.

    The token comes from HF_TOKEN or from `hf auth login`, and needs write access.
    """

    repo_id: str | None = None
    """USER/NAME on the Hub that takes the best model at the end of training; without it nothing is published."""
    each_best: bool = False
    """Also publishes the model of each epoch that is the best so far, while training goes on."""

    _prefix: ClassVar[str] = "--publish."
    """Stands before a field's name on the command line."""

    def __post_init__(self) -> None:
        super().__post_init__()
        others = [name for name in ("revision", "tag", "license", "benchmark_task") if getattr(self, name) is not None]
        others += ["each_best"] * self.each_best
        require(
            self.repo_id is not None or not others,
            f"{', '.join(map(self.option, others))} needs {self.option('repo_id')}: name the repository",
        )

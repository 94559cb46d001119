"""What the service is asked for."""

import hashlib
import ipaddress
import os
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from qa_ray.config.fields import refuse_secrets
from qa_ray.config.fine_tuning import AUTO
from qa_ray.config.policies import AnswerPrecision
from qa_ray.errors import require

TOKEN = "QA_RAY_SERVE_TOKEN"
"""Environment variable with the word that callers must bring as a bearer token."""
_SHORTEST_TOKEN = 16


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """Serve a fine-tuned model: a page to ask it on, and an API, until Ctrl-C or SIGTERM.

    It listens on this machine alone. To open it to others, set QA_RAY_SERVE_TOKEN to a word of your own, which callers
    then bring as a bearer token, and give --host 0.0.0.0. A model that is named by an alias of MLflow, such as
    models:/qa@champion, is watched: a new version takes over without a request lost.
    """

    model: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="MODEL")]
    """Folder of a run or a model, Hub id, or MLflow URI (models:/NAME@ALIAS, runs:/ID/PATH)."""
    revision: str | None = None
    """Branch, tag or commit of MODEL on the Hub."""
    trust_remote_code: bool = False
    """Runs Python code that comes with the model. Only for models whose code you have read."""
    precision: AnswerPrecision = AnswerPrecision.AUTO
    """Number format of the forward pass."""
    host: str = "127.0.0.1"
    """Address to listen on; any other than this machine's own needs a token."""
    port: int = 8000
    """Port to listen on."""
    replicas: int | tuple[int, int] = 1
    """Copies of the model that answer; the fewest and the most, between which their number follows the load."""
    cpus_per_replica: int | None = None
    """CPU cores of a replica, and threads that it computes with; without a number, one beside a GPU, or an equal
    share of a node."""
    use_gpu: bool | None = None
    """Gives each replica a GPU; without a word, if the cluster has any."""
    max_tokens_per_device: int | Literal["auto"] = AUTO
    """Padded tokens in one forward pass; `auto` takes as many as a CPU's cache holds or as keep a GPU busy."""
    max_waiting: int = 128
    """Requests that are answered or wait at a time; more are refused at once (429)."""
    max_characters: int = 200_000
    """Longest question and contexts of a request together, in characters."""
    max_questions: int = 64
    """Most questions in a request for many."""
    timeout_s: float = 30.0
    """Seconds after which a request is given up (504)."""
    watch_s: float = 10.0
    """Seconds between two looks at the alias of a registered model."""
    address: str | None = None
    """Ray cluster to join; without one, the cluster this job was submitted to, or a new local one."""
    local_cpus: int | None = None
    """CPU cores of a new local cluster; without a number, all that this process may use."""

    def __post_init__(self) -> None:
        refuse_secrets(self, lambda name: f"--{name.replace('_', '-')}")
        require(bool(self.model), "MODEL is empty: name a folder, a Hub id or an MLflow URI")
        require(bool(self.host), "--host is empty: give an address such as 127.0.0.1")
        require(0 <= self.port < 2**16, f"--port={self.port} must be in [0, 65535]")
        fewest, most = self.replica_range
        require(1 <= fewest <= most, f"--replicas={self.replicas} must be at least 1, the fewest first")
        for name in (
            "cpus_per_replica", "max_tokens_per_device", "max_waiting", "max_characters", "max_questions", "local_cpus",
        ):  # fmt: skip
            value = getattr(self, name)
            right = value in (None, AUTO) or value >= 1
            require(right, f"--{name.replace('_', '-')}={value} must be at least 1")
        for name in ("timeout_s", "watch_s"):
            value = getattr(self, name)
            require(value > 0, f"--{name.replace('_', '-')}={value} must be above 0")

    @property
    def replica_range(self) -> tuple[int, int]:
        """The fewest and the most replicas."""
        return (self.replicas, self.replicas) if isinstance(self.replicas, int) else self.replicas

    def require_guarded(self) -> None:
        """Refuse to listen to other machines without a token.

        Raises:
            ConfigError: the address is open, and there is no token.
        """
        require(
            is_loopback(self.host) or token_digest() is not None,
            f"--host={self.host} lets other machines in: set {TOKEN} in the environment to a word that they must "
            "bring, or leave --host out",
        )


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def token_digest() -> str | None:
    """SHA-256 of the token in the environment, which may travel where the token itself must not; None without one.

    Raises:
        ConfigError: the token is so short that it can be guessed.
    """
    token = os.environ.get(TOKEN, "")
    if not token:
        return None
    require(len(token) >= _SHORTEST_TOKEN, f"{TOKEN} has {len(token)} characters: give at least {_SHORTEST_TOKEN}")
    return digest(token)


def digest(token: str) -> str:
    """SHA-256 of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()

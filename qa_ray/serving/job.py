"""The service's job on the driver: check the model, start Ray Serve, tell what happens, and lose nothing at its end."""

import contextlib
import logging
import socket
import threading
from dataclasses import replace
from typing import Any

import torch
import transformers
from ray import serve as ray_serve
from ray.exceptions import RayError
from ray.serve.config import HTTPOptions, ProxyLocation
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import LoggingConfig

from qa_ray.answers import QuestionAnswerer
from qa_ray.errors import ClusterError, ConfigError
from qa_ray.locations import absolute
from qa_ray.runs.signals import Interruptible
from qa_ray.serving.application import GATEWAY, make, plan
from qa_ray.serving.options import ServeOptions, is_loopback
from qa_ray.serving.served_model import probe

logger = logging.getLogger(__name__)

_NAME = "qa_ray"
_MARGIN_S = 10.0
_LOGGING = LoggingConfig(log_level="ERROR", enable_access_log=False)


def serve(options: ServeOptions) -> str:
    """Serve a model on the Ray cluster that this process is connected to, until a signal comes.

    Raises:
        UserError: something that the user can mend; the message says how.
        KeyboardInterrupt: a second signal came, before all questions were answered.
    """
    options.require_guarded()
    _require_alone()
    transformers.logging.disable_progress_bar()
    _check_model(options)
    port = _free_port(options)
    # Replicas may work in another folder than this process.
    gateway = _start(replace(options, model=absolute(options.model)), port)
    print(
        f"{_address(options.host, port)} (the page; /docs has the API, /metrics its counters); Ctrl-C ends it",
        flush=True,
    )
    ended = threading.Event()

    def follow() -> None:
        _follow(gateway, options.watch_s, ended)
        logger.info("stopping: what was asked is answered first; once more ends it at once")
        # Who waits longer than a request may take has been told so.
        gateway.drain.remote().result(timeout_s=options.timeout_s + _MARGIN_S)
        ray_serve.delete(_NAME)

    Interruptible(ended.set).run(follow)
    return "stopped"


def _require_alone() -> None:
    """Check that nothing is served on this cluster, and clear away what an ended service left.

    Ray Serve has one address, and would keep the one it has.

    Raises:
        ClusterError: something is.
    """
    status = ray_serve.status()
    if status.applications:
        raise ClusterError(
            f"Ray Serve runs on this cluster already (with {', '.join(sorted(status.applications))}): add the model to "
            "the config file that was deployed there, as in jobs/serve.yaml, or end what runs with `serve shutdown`"
        )
    if status.proxies:
        ray_serve.shutdown()


def _check_model(options: ServeOptions) -> None:
    """Open the model here, where an error is told in words before anything has started."""
    device = "cuda" if plan(options).use_gpu and torch.cuda.is_available() else "cpu"
    answerer = QuestionAnswerer.from_pretrained(
        options.model,
        revision=options.revision,
        device=device,
        precision=options.precision,
        trust_remote_code=options.trust_remote_code,
    )
    probe(answerer, options.model)


def _free_port(options: ServeOptions) -> int:
    """The port to listen on: the one that is wanted, or any for 0.

    Raises:
        ConfigError: something listens there already, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    with socket.socket(family) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((options.host, options.port))
        except OSError as error:
            raise ConfigError(
                f"--host={options.host} --port={options.port}: {error.strerror or error}; name another --port, or 0"
            ) from error
        port: int = tried.getsockname()[1]
        return port


def _start(options: ServeOptions, port: int) -> DeploymentHandle:
    """Start the application, and return the handle of its gateway once a model answers.

    Raises:
        ClusterError: it does not start.
    """
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    # On this machine alone one proxy listens; an open address is that of every node with a replica.
    location = ProxyLocation.HeadOnly if is_loopback(options.host) else ProxyLocation.EveryNode
    try:
        with contextlib.ExitStack() as undo:
            undo.callback(_withdraw)
            ray_serve.start(location, HTTPOptions(host=options.host, port=port), logging_config=_LOGGING)
            ray_serve.run(make(options), name=_NAME, route_prefix="/")
            gateway = ray_serve.get_deployment_handle(GATEWAY, _NAME)
            gateway.describe.remote().result(timeout_s=options.timeout_s)
            undo.pop_all()
    except (RayServeException, RayError, RuntimeError, TimeoutError) as error:
        last = next((line for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
        raise ClusterError(f"the service does not start: {last.strip()}") from error
    return gateway


def _withdraw() -> None:
    with contextlib.suppress(Exception):
        ray_serve.delete(_NAME)


def _follow(gateway: DeploymentHandle, watch_s: float, ended: threading.Event) -> None:
    """Tell of each change of the model, until the end."""
    shown: dict[str, Any] = {}
    while not ended.wait(watch_s if shown else 0):
        try:
            found = gateway.describe.remote().result(timeout_s=watch_s)
        # Whatever it is, the service may be well again at the next look.
        except Exception as error:
            found = {**shown, "trouble": f"no model answers at present ({type(error).__name__})"}
        if shown and found.get("version") != shown.get("version"):
            logger.warning("version %s answers now", found["version"])
        if found.get("trouble") not in (None, shown.get("trouble")):
            logger.warning("%s", found["trouble"])
        shown = found


def _address(host: str, port: int) -> str:
    name = "127.0.0.1" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}"

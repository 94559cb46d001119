"""The service as an application of Ray Serve, for `jobs/serve.py` and for a config file of `serve deploy`."""

from typing import Any

import ray
from ray import serve
from ray.serve.config import AutoscalingConfig

from qa_ray.config.files import build
from qa_ray.config.operation import ClusterConfig
from qa_ray.errors import require
from qa_ray.runs.resources import Resources, choose, node_cpus
from qa_ray.serving.gateway import Gateway
from qa_ray.serving.options import ServeOptions, token_digest
from qa_ray.serving.replica import Replica

GATEWAY = "gateway"
_MODEL = "model"
_ONGOING = 64
"""Questions that a replica holds at a time, of which it makes its batches."""
_TARGET = 16.0
"""Questions of a replica that the number of replicas is kept to: about two batches."""
_SPARE = 1000
"""Connections beyond the questions that wait: those that are refused, and those that ask for the page."""


def make(options: ServeOptions) -> serve.Application:
    """The application: a gateway, and the replicas of the model behind it."""
    resources = plan(options)
    fewest, most = options.replica_range
    number: dict[str, Any] = {"num_replicas": fewest}
    if resources.elastic:
        scaling = AutoscalingConfig(min_replicas=fewest, max_replicas=most, target_ongoing_requests=_TARGET)
        number = {"autoscaling_config": scaling}
    model = serve.deployment(
        Replica,
        name=_MODEL,
        max_ongoing_requests=_ONGOING,
        ray_actor_options={"num_cpus": resources.cpus_per_worker, "num_gpus": 1 if resources.use_gpu else 0},
        graceful_shutdown_timeout_s=options.timeout_s,
        **number,
    )
    gateway = serve.deployment(
        serve.ingress()(Gateway),
        name=GATEWAY,
        num_replicas=1,
        max_ongoing_requests=options.max_waiting + _SPARE,
        ray_actor_options={"num_cpus": 0},
        graceful_shutdown_timeout_s=options.timeout_s,
    )
    replicas = model.bind(options, use_gpu=resources.use_gpu, num_threads=resources.cpus_per_worker)
    return gateway.bind(replicas, options, token_digest())


def plan(options: ServeOptions) -> Resources:
    """The CPUs and GPUs of the replicas."""
    cluster = ClusterConfig(
        num_workers=options.replicas, cpus_per_worker=options.cpus_per_replica, use_gpu=options.use_gpu
    )
    return choose(cluster, node_cpus(), int(ray.cluster_resources().get("GPU", 0)))


def from_config(args: dict[str, Any]) -> serve.Application:
    """The application that a config file describes: `args` are the options of `qa-ray serve` by their names.

    Raises:
        ConfigError: an option is missing, or cannot work.
    """
    require(
        not args.get("trust_remote_code"),
        "serve: trust_remote_code counts on the command line alone, not in a file: use jobs/serve.py",
    )
    return make(build(ServeOptions, args, "serve"))

import socket

import pytest

from qa_ray.config.operation import ClusterConfig
from qa_ray.errors import ClusterError
from qa_ray.runs.connection import start_ray


def test_address_where_nothing_listens_is_named_at_once() -> None:
    with socket.socket() as silent:
        # Taken, so that nobody else can listen there.
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        with pytest.raises(ClusterError, match=rf"cluster\.address=127\.0\.0\.1:{port}: nothing answers there"):
            start_ray(ClusterConfig(address=f"127.0.0.1:{port}"))

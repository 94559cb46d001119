"""An S3 server of our own: real HTTP, kept in memory."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from moto.server import ThreadedMotoServer
from pyarrow import fs

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "nobody",
    "AWS_SECRET_ACCESS_KEY": "nothing",
    "AWS_DEFAULT_REGION": "us-east-1",
    # Without it the client looks for a cloud machine's own credentials.
    "AWS_EC2_METADATA_DISABLED": "true",
    # Nor may the credentials of whoever runs the tests be found.
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}


@contextmanager
def s3_server(bucket: str, address: str = "127.0.0.1") -> Iterator[tuple[ThreadedMotoServer, str]]:
    """Start a server that has one empty bucket; yields it and the bucket's URI, which other processes open too.

    Processes that are started meanwhile inherit the credentials.
    """
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address=address, port=0, verbose=False)
    with pytest.MonkeyPatch.context() as environment:
        for name, value in CREDENTIALS.items():
            environment.setenv(name, value)
        environment.delenv("AWS_PROFILE", raising=False)
        environment.delenv("AWS_SESSION_TOKEN", raising=False)
        server.start()
        try:
            host, port = server.get_host_and_port()
            query = f"endpoint_override=http://{host}:{port}&scheme=http"
            creator, path = fs.FileSystem.from_uri(f"s3://{bucket}?{query}&allow_bucket_creation=true")
            creator.create_dir(path)
            yield server, f"s3://{bucket}?{query}"
        finally:
            server.stop()

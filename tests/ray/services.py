"""What lies outside of a cluster, for tests of one: an S3 server with an empty bucket, and an MLflow server.

services.py ADDRESS FOLDER    prints their URIs, and serves until standard input is closed
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from mlflow_server import MlflowServer
from s3 import s3_server

if __name__ == "__main__":
    address, folder = sys.argv[1:]
    with s3_server("bucket", address) as (_, bucket):
        mlflow = MlflowServer(Path(folder), address).start()
        print(json.dumps({"s3": bucket, "mlflow": mlflow.uri}), flush=True)
        sys.stdin.read()
        mlflow.stop()

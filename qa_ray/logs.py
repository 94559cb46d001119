"""What libraries may say of themselves."""

import logging
import os


def silence() -> None:
    """Keep libraries from saying what helps nobody; to be called before they are imported."""
    for noisy in ("httpx", "httpx2", "alembic", "matplotlib"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # It warns of a cluster without free CPUs while a new one has not yet counted them. Ray Data sets up its logger when
    # it is imported, from the variable.
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    os.environ.setdefault("RAY_DATA_LOG_LEVEL", "ERROR")
    # A local cluster is guarded by a token; that it may be turned off is not news.
    logging.getLogger("ray._private.authentication.authentication_token_setup").setLevel(logging.ERROR)
    # MLflow sets up its logger when it is imported, from this.
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    # It would draw one for each handful of files.
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

"""Look before a long run whether it would fail: the same arguments as jobs/train.py, and nothing is left behind.

python jobs/doctor.py sample
python jobs/doctor.py bert_base_squad --cluster.address HOST:6379 --run.storage-path s3://bucket/runs

Ends with 1 if a check failed.
"""

import sys

from qa_ray.cli import main
from qa_ray.config.fine_tuning import Config
from qa_ray.doctor.examination import examine
from qa_ray.doctor.verdict import Status, row, total
from qa_ray.errors import UserError


def job(config: Config) -> str:
    """Show each check as it ends; returns the sum.

    Raises:
        UserError: a check failed.
    """
    verdicts = []
    for name, verdict in examine(config):
        print(row(name, verdict), flush=True)
        verdicts.append(verdict)
    if any(verdict.status is Status.FAILED for verdict in verdicts):
        raise UserError(total(verdicts))
    return total(verdicts)


if __name__ == "__main__":
    sys.exit(main(job))

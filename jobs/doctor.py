"""Look before a long run whether it would fail: the same arguments as jobs/train.py, and nothing is left behind.

python jobs/doctor.py sample
python jobs/doctor.py bert_base_squad --cluster.address HOST:6379 --run.storage-path s3://bucket/runs

Ends with 1 if a check failed.
"""

import sys

from qa_ray.cli.commands import doctor

if __name__ == "__main__":
    sys.exit(doctor(sys.argv[1:]))

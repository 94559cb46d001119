"""Publish a run's model on the Hugging Face Hub.

python jobs/publish.py runs/squad --repo-id user/minilm-squad
python jobs/publish.py s3://bucket/runs/squad --repo-id user/minilm-squad --no-private --license apache-2.0 --tag v1
"""

import sys

from qa_ray.cli.commands import publish

if __name__ == "__main__":
    sys.exit(publish(sys.argv[1:]))

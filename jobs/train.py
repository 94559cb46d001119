"""Fine-tune an extractive question-answering model on Ray.

python jobs/train.py sample
python jobs/train.py bert_base_squad --cluster.num-workers 8
python jobs/train.py bert_base_squad --publish.repo-id user/bert-squad
python jobs/train.py --help
"""

import sys

from qa_ray.cli import main
from qa_ray.config import Config
from qa_ray.publishing import publish, run_at, warn_without_token
from qa_ray.report import summary
from qa_ray.training.driver import train


def job(config: Config) -> str:
    """Train and, if a repository is named, publish; returns what is to be shown."""
    if config.publish.repo_id is None:
        return summary(train(config))
    warn_without_token()
    result = train(config)
    # Whatever becomes of the publication, this is worth knowing.
    print(summary(result))
    return f"\npublished {publish(run_at(result.folder), config.publish)}"


if __name__ == "__main__":
    sys.exit(main(job))

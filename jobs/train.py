"""Fine-tune an extractive question-answering model on Ray.

python jobs/train.py sample
python jobs/train.py bert_base_squad --cluster.num-workers 8
python jobs/train.py bert_base_squad --publish.repo-id user/bert-squad
python jobs/train.py --help
"""

import sys

from qa_ray.cli import main
from qa_ray.config.fine_tuning import Config


def job(config: Config) -> str:
    """Train and, if a repository is named, publish; returns what is to be shown."""
    # Here, for they bring torch, and help and --dry-run need none.
    from qa_ray.publishing.best_publisher import BestPublisher
    from qa_ray.publishing.publish import publish_after
    from qa_ray.runs.conclusion import summary
    from qa_ray.runs.driver import RunContext, train

    def work() -> tuple[str, str]:
        result = train(config, RunContext(callback=BestPublisher))
        return summary(result), result.folder

    return publish_after(work, config.publish)


if __name__ == "__main__":
    sys.exit(main(job))

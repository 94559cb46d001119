"""Search the fields of a training configuration on Ray: learning rate, stride, or any other.

python jobs/tune.py sample
python jobs/tune.py minilm --space 'optim.learning_rate=loguniform(5e-5, 1e-3)' 'window.stride=choice(32, 64, 128)'
python jobs/tune.py bert_base_squad --space space.toml --tune.num-trials 20 --tune.sampler random --tune.scheduler none
python jobs/tune.py minilm --help
"""

import sys

from qa_ray.cli import main
from qa_ray.publishing.publish import publish_after
from qa_ray.tuning.driver import search
from qa_ray.tuning.options import SweepConfig, as_sweep
from qa_ray.tuning.report import summary


def job(config: SweepConfig) -> str:
    """Search and, if a repository is named, publish the best model; returns what is to be shown."""

    def work() -> tuple[str, str]:
        result = search(config)
        return summary(result), result.best.folder

    return publish_after(work, config.publish)


if __name__ == "__main__":
    sys.exit(main(job, extend=as_sweep))

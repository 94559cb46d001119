"""Search the fields of a training configuration on Ray: learning rate, stride, or any other.

python jobs/tune.py sample
python jobs/tune.py minilm --space 'optim.learning_rate=loguniform(5e-5, 1e-3)' 'window.stride=choice(32, 64, 128)'
python jobs/tune.py bert_base_squad --space space.toml --tune.num-trials 20 --tune.sampler random --tune.scheduler none
python jobs/tune.py minilm --help
"""

import sys

from qa_ray.cli.commands import tune

if __name__ == "__main__":
    sys.exit(tune(sys.argv[1:]))

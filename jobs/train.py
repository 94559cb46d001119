"""Fine-tune an extractive question-answering model on Ray.

python jobs/train.py sample
python jobs/train.py bert_base_squad --cluster.num-workers 8
python jobs/train.py --help
"""

import sys

from qa_ray.cli import main
from qa_ray.report import summary
from qa_ray.training.driver import train

if __name__ == "__main__":
    sys.exit(main(lambda config: summary(train(config))))

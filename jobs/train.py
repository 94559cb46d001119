"""Fine-tune an extractive question-answering model on Ray.

python jobs/train.py sample
python jobs/train.py bert_base_squad --cluster.num-workers 8
python jobs/train.py bert_base_squad --publish.repo-id user/bert-squad
python jobs/train.py --help
"""

import sys

from qa_ray.cli.commands import train

if __name__ == "__main__":
    sys.exit(train(sys.argv[1:]))

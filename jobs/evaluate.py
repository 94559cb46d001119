"""Evaluate a fine-tuned model on a data set, spread over the workers of a Ray cluster, and write an HTML report.

python jobs/evaluate.py runs/squad --data dev.json
python jobs/evaluate.py runs/squad --data dev.json --against runs/other --out comparison
python jobs/evaluate.py --predictions answers.json --data dev.json
python jobs/evaluate.py --help
"""

import sys

from qa_ray.cli.commands import evaluate

if __name__ == "__main__":
    sys.exit(evaluate(sys.argv[1:]))

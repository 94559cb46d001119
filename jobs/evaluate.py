"""Evaluate a fine-tuned model on a data set, spread over the workers of a Ray cluster, and write an HTML report.

python jobs/evaluate.py runs/squad --data dev.json
python jobs/evaluate.py runs/squad --data dev.json --against runs/other --out comparison
python jobs/evaluate.py --help
"""

import sys

from qa_ray.cli import run_job, start_ray
from qa_ray.evaluation.job import evaluate
from qa_ray.evaluation.options import EvaluationOptions


def main(options: EvaluationOptions) -> str:
    """Join or start the cluster, evaluate, and return what is to be shown."""
    start_ray(options.cluster)
    return evaluate(options)


if __name__ == "__main__":
    sys.exit(run_job(EvaluationOptions, main))

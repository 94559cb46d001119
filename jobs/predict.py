"""Answer many questions with a fine-tuned model, spread over the workers of a Ray cluster, and write the answers.

python jobs/predict.py runs/squad --data 'questions/*.parquet' --out predictions
python jobs/predict.py runs/squad --data questions.jsonl --out s3://bucket/predictions --top-k 3 --out-format jsonl
python jobs/predict.py --help
"""

import sys

from qa_ray.cli import run_job, start_ray
from qa_ray.prediction.job import predict
from qa_ray.prediction.notice import leave_out_notice
from qa_ray.prediction.options import PredictionOptions


def main(options: PredictionOptions) -> str:
    """Join or start the cluster, answer what is not answered yet, and return what is to be shown."""
    start_ray(options.cluster)
    return predict(options)


if __name__ == "__main__":
    leave_out_notice()
    sys.exit(run_job(PredictionOptions, main))

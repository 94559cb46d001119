"""Answer many questions with a fine-tuned model, spread over the workers of a Ray cluster, and write the answers.

python jobs/predict.py runs/squad --data 'questions/*.parquet' --out predictions
python jobs/predict.py runs/squad --data questions.jsonl --out s3://bucket/predictions --top-k 3 --out-format jsonl
python jobs/predict.py --help
"""

import sys

from qa_ray.cli.commands import predict

if __name__ == "__main__":
    sys.exit(predict(sys.argv[1:]))

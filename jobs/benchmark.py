"""Measure qa_ray against the standard way, side by side in one run, from featurising to batch answering.

python jobs/benchmark.py
python jobs/benchmark.py --cases featurise decode --data train-v1.1.json
python jobs/benchmark.py --help
"""

import sys

from qa_ray.benchmark.job import benchmark
from qa_ray.benchmark.options import BenchmarkOptions
from qa_ray.cli import run_job, start_ray


def main(options: BenchmarkOptions) -> str:
    """Measure, write the results, and return what is to be shown."""
    return benchmark(options, start_ray)


if __name__ == "__main__":
    sys.exit(run_job(BenchmarkOptions, main))

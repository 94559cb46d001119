"""Measure qa_ray against the standard way, side by side in one run, from featurising to batch answering.

python jobs/benchmark.py
python jobs/benchmark.py --cases featurise decode --data train-v1.1.json
python jobs/benchmark.py --help
"""

import sys

from qa_ray.cli.commands import benchmark

if __name__ == "__main__":
    sys.exit(benchmark(sys.argv[1:]))

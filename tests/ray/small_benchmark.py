"""jobs/benchmark.py on batches of four windows: those of its recipe cost minutes on one core."""

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "jobs"))

import benchmark

from qa_ray.cli import exit_code
from qa_ray.config.fine_tuning import Config
from qa_ray.config.recipes import minilm


def small() -> Config:
    recipe = minilm()
    return replace(recipe, batch=replace(recipe.batch, size=4))


if __name__ == "__main__":
    benchmark.minilm = small
    sys.exit(exit_code(benchmark.main))

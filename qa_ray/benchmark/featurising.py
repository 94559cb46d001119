"""The benchmark's case of featurising: examples to labelled windows."""

import time

from qa_ray.benchmark.standard import training_features
from qa_ray.benchmark.timing import Row, Timing, interleave
from qa_ray.benchmark.workload import Workload


def featurise(workload: Workload, repeats: int) -> list[Row]:
    """Examples to windows; reading the JSON is not counted."""
    window, num_windows = workload.config.window, len(workload.collator.windows)

    def standard() -> Timing:
        begin = time.perf_counter()
        features = training_features(workload.rows, workload.tokenizer, window.max_length, window.stride, pad=True)
        seconds = time.perf_counter() - begin
        if len(features) != num_windows:
            raise AssertionError(f"featurise: {len(features)} windows in the standard way, {num_windows} in ours")
        return Timing(len(workload.rows), seconds)

    def ours() -> Timing:
        begin = time.perf_counter()
        corpus = workload.featurise(workload.passages).corpus
        return Timing(len(corpus), time.perf_counter() - begin)

    timings = interleave("featurise", {"standard": standard, "ours": ours}, repeats)
    return [
        Row(
            case="featurise",
            standard="Dataset.map",
            ours="windows as views",
            unit="examples",
            standard_timings=timings["standard"],
            ours_timings=timings["ours"],
            goal=6.0,
        )
    ]

"""The benchmark's case of batch answering: a plain loop over the questions, and the prediction job on as many cores."""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow.parquet as pq

from qa_ray.answers import QuestionAnswerer
from qa_ray.benchmark.timing import Row, Timing, interleave
from qa_ray.benchmark.workload import Workload, to_squad
from qa_ray.config.operation import ClusterConfig
from qa_ray.config.policies import AnswerPrecision
from qa_ray.model.folder import save_model
from qa_ray.model.loading import load_model
from qa_ray.prediction.job import predict
from qa_ray.prediction.options import PredictionOptions
from qa_ray.schema import Passage

_MAX_PASSAGES = 100
_PART_SIZE = 32
_ROUNDING = 1e-3


def prediction(workload: Workload, *, repeats: int, threads: int, bf16: bool) -> list[Row]:
    """Question after question in this process, and through the job with a worker for each thread.

    The time of the job is that after its first part: starting its workers takes as long for any number of questions.
    Without `bf16` there is no row of that precision.
    """
    with TemporaryDirectory(prefix="qa_ray-benchmark-") as place:
        case = _Case(Path(place), workload.passages[:_MAX_PASSAGES], threads)
        case.prepare(workload)
        ways: dict[str, Callable[[], Timing]] = {"loop": case.loop}
        for precision in (AnswerPrecision.FP32, *[AnswerPrecision.BF16] * bf16, AnswerPrecision.INT8):
            ways[precision] = partial(case.job, precision)
        timings = interleave("predict", ways, repeats)
    case.check_answers()
    return [
        Row(
            case=f"predict {way}",
            standard="plain loop, fp32",
            ours=f"job, {way}",
            unit="questions",
            standard_timings=timings["loop"],
            ours_timings=timings[way],
            details={"num_workers": threads, "startup_seconds": median(case.startups[way])},
        )
        for way in case.startups
    ]


@dataclass(frozen=True)
class _Case:
    """Both ways, and what they found."""

    place: Path
    passages: list[Passage]
    threads: int
    answers: dict[str, list[Any]] = field(default_factory=dict)
    startups: dict[str, list[float]] = field(default_factory=dict)

    def prepare(self, workload: Workload) -> None:
        """Write the questions, and a model with a new head: it costs as much as a trained one."""
        content = json.dumps(to_squad(self.passages, "benchmark"))
        (self.place / "questions.json").write_text(content, encoding="utf-8")
        config = workload.config
        save_model(self.place / "model", load_model(config.model), workload.tokenizer, config, None)

    def loop(self) -> Timing:
        """One call for each question."""
        answerer = QuestionAnswerer.from_pretrained(str(self.place / "model"))
        pairs = [(question.text, passage.context) for passage in self.passages for question in passage.questions]
        begin = time.perf_counter()
        self.answers["loop"] = [answerer(question, context) for question, context in pairs]
        return Timing(len(pairs), time.perf_counter() - begin)

    def job(self, way: AnswerPrecision) -> Timing:
        """The prediction job."""
        out = self.place / way
        shutil.rmtree(out, ignore_errors=True)
        options = PredictionOptions(
            model=str(self.place / "model"),
            data=str(self.place / "questions.json"),
            out=str(out),
            part_size=_PART_SIZE,
            precision=way,
            cluster=ClusterConfig(num_workers=self.threads, cpus_per_worker=1),
        )
        begin = time.time()
        predict(options)
        rows = self.answers[way] = pq.read_table(out / "answers").to_pylist()
        written = sorted(path.stat().st_mtime for path in (out / "answers").iterdir())
        self.startups.setdefault(way, []).append(written[0] - begin)
        # The other workers' first parts are nearly done too: the time of one part is counted for all of them.
        share = (len(written) - 1) / len(written)
        seconds = (written[-1] - written[0]) / share if share else written[0] - begin
        return Timing(len(rows), seconds)

    def check_answers(self) -> None:
        """The job's answers in fp32 are as good as the loop's; which of two alike is best, rounding may decide."""
        for mine, other in zip(self.answers[AnswerPrecision.FP32], self.answers["loop"], strict=True):
            if abs(mine["score"] - other["score"]) > _ROUNDING:
                raise AssertionError(
                    f"predict: {mine['id']} has the score {mine['score']}, in the loop {other['score']}"
                )

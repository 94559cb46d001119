"""What a benchmark is made of: the data both ways start from, runs that take turns, rows, a table, machine facts."""

import contextlib
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerFast as FastTokenizer

from qa_ray.config.fine_tuning import Config, DataConfig
from qa_ray.data.collate import Collator
from qa_ray.data.corpus import Corpus
from qa_ray.data.passages import read_split
from qa_ray.data.template import Template
from qa_ray.data.tokenization import parse_tokenizer as load_backend
from qa_ray.data.tokenization import tokenize
from qa_ray.data.validation import check, describe
from qa_ray.data.windows import make_windows
from qa_ray.errors import DataError
from qa_ray.model.loading import learn_template, load_tokenizer
from qa_ray.schema import Passage

_PACKAGES = ("accelerate", "datasets", "numpy", "ray", "tokenizers", "torch", "transformers")


@dataclass(frozen=True, kw_only=True)
class Material:
    """What every case starts from: a recipe, its tokenizer, and passages in memory."""

    config: Config
    tokenizer: FastTokenizer
    template: Template
    passages: list[Passage]

    @classmethod
    def read(cls, config: Config, location: str) -> "Material":
        """Read the questions at `location`.

        Raises:
            DataError: it cannot be read, or has a row that cannot be used.
        """
        passages, problems = read_split(DataConfig(), location)
        problems += [problem for passage in passages for problem in check(passage)[1]]
        if problems or not passages:
            raise DataError(f"--data={location}: {describe(problems) if problems else 'it holds no question'}")
        tokenizer = load_tokenizer(config.model)
        return cls(config=config, tokenizer=tokenizer, template=learn_template(tokenizer), passages=passages)

    @cached_property
    def rows(self) -> Dataset:
        """The questions as the standard way has them: columns id, question, context, answers."""
        return rows_of(self.passages)

    @cached_property
    def collator(self) -> Collator:
        """All windows, as ours has them."""
        return self.featurise(self.passages)

    def featurise(self, passages: list[Passage]) -> Collator:
        """Passages to labelled windows, our way."""
        config = self.config
        sound = [check(passage)[0] for passage in passages]
        corpus = Corpus([tokenize(sound, [], load_backend(self.tokenizer.backend_tokenizer.to_str()))])
        windows = make_windows(corpus, config.window, self.template)
        return Collator(corpus, windows, self.template, config.batch.pad_to_multiple_of, config.window.max_length)


def rows_of(passages: list[Passage]) -> Dataset:
    """A row for each question, with the columns of SQuAD on the Hub."""
    pairs = [(passage.context, question) for passage in passages for question in passage.questions]
    answers = [
        {"text": [a.text for a in question.answers], "answer_start": [a.answer_start for a in question.answers]}
        for _, question in pairs
    ]
    columns = {
        "id": [question.id for _, question in pairs],
        "context": [context for context, _ in pairs],
        "question": [question.text for _, question in pairs],
    }
    return Dataset.from_dict(columns | {"answers": answers})


class Run(NamedTuple):
    """One timed repeat of a way."""

    work: int
    """Examples or windows done."""
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison: the runs of the standard way and of ours, which did the same work."""

    case: str
    standard: str
    """What the standard way is, in a few words."""
    ours: str
    unit: str
    standard_runs: list[Run]
    ours_runs: list[Run]
    goal: float | None = None
    """The ratio that is hoped for."""
    details: dict[str, float] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """How many times as fast ours is."""
        return speed(self.ours_runs) / speed(self.standard_runs)

    def as_dict(self) -> dict[str, Any]:
        """The row as JSON."""
        row = asdict(self)
        for side in ("standard", "ours"):
            row[f"{side}_runs"] = [run._asdict() for run in getattr(self, f"{side}_runs")]
            row[f"{side}_per_second"] = speed(getattr(self, f"{side}_runs"))
        return row | {"ratio": self.ratio}


def speed(runs: list[Run]) -> float:
    """Median work per second."""
    return median(run.work / run.seconds for run in runs)


def interleave(case: str, ways: Mapping[str, Callable[[], Run]], repeats: int) -> dict[str, list[Run]]:
    """Run every way `repeats` times in turns, and say on stderr how far it is.

    A noisy neighbour then slows all ways alike, and a median leaves it out.
    """
    runs: dict[str, list[Run]] = {name: [] for name in ways}
    for repeat in range(repeats):
        for name, way in ways.items():
            run = way()
            runs[name].append(run)
            speed_now = f"{run.work / run.seconds:.1f}/s in {run.seconds:.1f} s"
            print(f"  {case} {repeat + 1}/{repeats} {name}: {speed_now}", file=sys.stderr, flush=True)
    if len({run.work for of_way in runs.values() for run in of_way}) > 1:
        raise AssertionError(f"{case}: the ways did not do the same work: {runs}")
    return runs


def now(device: torch.device) -> float:
    """Seconds of a clock, once the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def table(rows: list[Row]) -> str:
    """The rows as text."""
    lines: list[tuple[str, ...]] = [("case", "standard", "ours", "unit", "standard/s", "ours/s", "ratio", "goal")]
    for row in rows:
        speeds = (f"{speed(runs):,.1f}" for runs in (row.standard_runs, row.ours_runs))
        goal = "" if row.goal is None else f">= {row.goal:g}"
        lines.append((row.case, row.standard, row.ours, row.unit, *speeds, f"{row.ratio:.3g}", goal))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) if place < 4 else cell.rjust(width) for place, (cell, width) in enumerate(cells))
        for cells in (zip(line, widths, strict=True) for line in lines)
    )


def machine() -> dict[str, Any]:
    """What the numbers depend on: processor, cores, load, number formats, versions."""
    formats = torch.cpu.get_capabilities()
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "load_average": os.getloadavg()[0],
        "cpu_formats": sorted(name for name, there in formats.items() if there is True),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "versions": {package: version(package) for package in _PACKAGES},
    }


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def restart_peak_memory() -> None:
    """Forget the largest resident memory so far, where the system can (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def peak_memory_gb() -> float | None:
    """Largest resident memory of this process since the restart, in 10^9 bytes; None where it is not told."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e9
    return None

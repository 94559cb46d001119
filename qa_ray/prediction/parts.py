"""Cut the input into parts: so many rows of one file each, always the same ones, so that finished ones are known."""

import pickle
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from itertools import islice
from typing import Any

import pyarrow as pa

from qa_ray.config.fine_tuning import Columns, DataConfig
from qa_ray.config.policies import DataFormat
from qa_ray.data.files import SourceFile
from qa_ray.data.sources import HUB_BATCH_ROWS, open_hub
from qa_ray.errors import DataError, UserError
from qa_ray.prediction.questions import Asked, Item, ask, batch_items, read_items

_PATTERN = re.compile(r"part-(\d{5,})-(\d{6,})\.\w+")

_ASKED = pa.struct(
    [(name, pa.large_string()) for name in (field.name for field in fields(Asked))],
)
PART = pa.schema(
    [
        ("name", pa.string()),
        ("rows", pa.large_list(_ASKED)),
        ("num_rows", pa.int64()),
        ("num_bytes", pa.float64()),
        ("failure", pa.binary()),
    ]
)
"""A row per part. `rows` is null for a part that is finished; `failure` is why no more of the file can be read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A file, or a split of a Hub data set, that is answered."""

    index: int
    """Its place among all, which its parts are named after."""
    name: str
    size: int
    """Bytes of a file, rows of a split."""
    mtime_ns: int | None = None
    """When a file was changed; None for a split."""
    location: str | None = None
    """None for a split of a Hub data set."""
    format: DataFormat = DataFormat.AUTO
    finished: tuple[int, ...] = ()
    """Numbers of the parts that are written already."""

    def items(self, data: DataConfig) -> Iterator[Item]:
        """Read its rows; see `read_items` for what is raised."""
        if self.location is None:
            dataset = open_hub(data, self.name)
            batches = dataset.with_format("arrow").iter(HUB_BATCH_ROWS)
            return batch_items(batches, f"{data.hub} {self.name}", self.size)
        file = SourceFile(self.location, self.name, self.format)
        # The names of SQuAD's keys are fixed.
        return read_items(file, self.size, data.columns)

    def columns(self, data: DataConfig) -> Columns:
        """Names of the columns in its rows: those of nested SQuAD JSON are fixed."""
        return Columns() if self.format is DataFormat.SQUAD else data.columns


def part_name(source: int, number: int, ending: str) -> str:
    """Name of a part's file."""
    return f"part-{source:05}-{number:06}.{ending}"


def finished_parts(names: Iterable[str]) -> dict[int, tuple[int, ...]]:
    """By the source's index, the numbers of its parts among the file names `names`."""
    found: dict[int, list[int]] = {}
    for name in names:
        match = _PATTERN.fullmatch(name)
        if match:
            found.setdefault(int(match[1]), []).append(int(match[2]))
    return {source: tuple(sorted(numbers)) for source, numbers in found.items()}


def read_parts(
    sources: Iterable[Source], data: DataConfig, *, size: int, max_rows: int | None, ending: str
) -> Iterator[pa.Table]:
    """Yield the parts of `sources`, of up to `size` rows, as PART tables with one row each, up to `max_rows` in all."""
    left = max_rows
    for source in sources:
        done = 0.0
        try:
            items = islice(source.items(data), left)
            for number, chunk in enumerate(_chunks(items, size)):
                finished = number in source.finished
                rows = None if finished else [asdict(ask(item, source.columns(data))) for item in chunk]
                share, done = chunk[-1].share - done, chunk[-1].share
                left = None if left is None else left - len(chunk)
                yield _table(part_name(source.index, number, ending), rows, len(chunk), share * source.size)
        except (UserError, pa.ArrowException, OSError) as error:
            failure = DataError(f"{source.name} cannot be read to its end: {error}")
            yield _table("", None, 0, (1 - done) * source.size, failure)
        if left == 0:
            return


def _chunks(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    while chunk := list(islice(items, size)):
        yield chunk


def _table(
    name: str, rows: list[dict[str, Any]] | None, num_rows: int, num_bytes: float, failure: UserError | None = None
) -> pa.Table:
    row = {
        "name": name,
        "rows": rows,
        "num_rows": num_rows,
        "num_bytes": num_bytes,
        "failure": None if failure is None else pickle.dumps(failure),
    }
    return pa.Table.from_pylist([row], PART)


def part_rows(table: pa.Table) -> list[Asked] | None:
    """The rows of a part; None if it is finished."""
    rows = table["rows"][0].as_py()
    return None if rows is None else [Asked(**row) for row in rows]

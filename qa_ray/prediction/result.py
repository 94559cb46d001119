"""What a batch of answers has to show, and the answers themselves."""

from dataclasses import dataclass

import pyarrow as pa
from pyarrow import dataset, fs

from qa_ray.locations import is_local, within
from qa_ray.prediction.options import OutFormat
from qa_ray.prediction.output_folder import ANSWERS
from qa_ray.storage.run_folder import RunFolder, guarded


@dataclass(frozen=True, slots=True)
class PredictionResult:
    """A folder of answers, and how it came about."""

    folder: str
    """Path or URI."""
    format: OutFormat
    num_files: int
    num_rows: int = 0
    """Questions of this job, with those that were answered before it was interrupted."""
    num_answered: int = 0
    """Questions that were answered now; 0 if nothing was left to do."""
    num_reasons: int = 0
    """Those among them that could not be answered: each has a reason instead."""
    seconds: float = 0.0
    """Time that these took."""

    def answers(self) -> pa.Table:
        """All answers, a row each, in the order of the questions.

        Raises:
            StorageError: they cannot be read.
        """
        kind = "json" if self.format is OutFormat.JSONL else "parquet"
        with guarded(f"--out={self.folder}", "read"):
            filesystem, path = RunFolder.at(within(self.folder, ANSWERS)).filesystem()
            files = filesystem.get_file_info(fs.FileSelector(path))
            names = sorted(file.path for file in files if file.path.endswith(f".{self.format}"))
            table: pa.Table = dataset.dataset(names, filesystem=filesystem, format=kind).to_table()
        return table


def summary(result: PredictionResult) -> str:
    """What was done, and where the answers are."""
    if not result.num_rows:
        return f"nothing is left to do: {result.folder} is finished"
    place = f"{result.folder.rstrip('/')}/{ANSWERS}" if is_local(result.folder) else result.folder
    before = result.num_rows - result.num_answered
    lines = [
        f"{result.num_answered:,} questions answered in {result.seconds:,.0f} s, "
        f"{result.num_answered / result.seconds:,.1f} a second",
        f"{result.num_reasons:,} of them have a reason in place of an answer",
        f"{result.num_rows:,} rows in {result.num_files:,} files: {place}",
    ]
    if before:
        lines.insert(1, f"{before:,} more were answered before")
    return "\n".join(lines)

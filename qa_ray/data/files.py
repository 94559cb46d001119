"""Find data files: a file, a folder, a glob, a package's own, or a URI that pyarrow opens; or name a Hub data set."""

import os
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

import pyarrow as pa
from pyarrow import fs

from qa_ray.config.data import DataConfig
from qa_ray.config.policies import DataFormat
from qa_ray.errors import DataError
from qa_ray.locations import PACKAGE_SCHEME, is_local, resolve, within

_ENDINGS = {
    ".json": DataFormat.SQUAD,
    ".jsonl": DataFormat.JSONL,
    ".ndjson": DataFormat.JSONL,
    ".parquet": DataFormat.PARQUET,
    ".csv": DataFormat.CSV,
    ".tsv": DataFormat.TSV,
}
_COMPRESSIONS = {".gz": "gzip", ".bz2": "bzip2", ".zst": "zstd", ".xz": "xz"}


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A data file, in a form that every node can open by itself."""

    location: str
    """Absolute path, URI, or package://PACKAGE/PATH, which each node looks up in its own packages."""
    name: str
    """Name in messages and in made ids: the path below the folder that was searched."""
    format: DataFormat

    @property
    def compression(self) -> str | None:
        """How it is compressed, by its last ending; None where it is not."""
        return _COMPRESSIONS.get(PurePosixPath(self.name).suffix.lower())

    def open(self) -> tuple[fs.FileSystem, str]:
        """Return the file system and the path in it; DataError where there is no such file system."""
        return _filesystem(self.location)


@dataclass(frozen=True, slots=True)
class HubSplit:
    """A split of a Hub data set."""

    location: str
    """Name of the data set."""
    split: str
    num_rows: int | None = None
    """None where they were not counted."""
    streaming: bool = False
    """Downloads only what is read, instead of all into the cache on the local disk."""

    @property
    def name(self) -> str:
        """Name in messages and in made ids."""
        return f"{self.location} {self.split}"


def _filesystem(location: str) -> tuple[fs.FileSystem, str]:
    resolved = resolve(location)
    if is_local(resolved):
        return fs.LocalFileSystem(), os.path.abspath(resolved)
    try:
        filesystem, path = fs.FileSystem.from_uri(resolved)
    except (pa.ArrowException, OSError, ImportError) as error:
        raise DataError(f"{location} cannot be opened: {error}. Download the data and name the local file") from error
    return filesystem, path


def find_files(data: DataConfig, location: str) -> list[SourceFile]:
    """Return the files that `location` names, sorted: a file, the files of a folder, or the matches of a glob.

    A folder stands for the files in it with a known ending, not for those in its sub-folders; ** in a glob is any
    number of folders. Files whose name starts with a dot are passed over.

    Raises:
        DataError: nothing is there, or the layout of a file is not known.
        ConfigError: the package of a package:// location is not installed.
    """
    base, pattern = _split(location)
    filesystem, path = _filesystem(base)
    try:
        kind = filesystem.get_file_info(path).type
        if kind == fs.FileType.File and not pattern:
            name = PurePosixPath(path).name
            return [SourceFile(base, name, _format(data, name, location))]
        inner = _files_below(filesystem, path, pattern) if kind == fs.FileType.Directory else []
    except OSError as error:
        raise DataError(f"{location} cannot be read: {error}") from error
    shown_path = f"{path}/{pattern}" if pattern else path
    if not inner and not pattern and kind != fs.FileType.Directory:
        hint = f"Name a file, a folder, a glob or a URI; for a data set on the Hub, set {data.option('hub')}"
        raise DataError(f"{location}: there is no file or folder {shown_path}. {hint}")
    if not inner:
        what = "file matches" if pattern else f"file with a known ending ({', '.join(_ENDINGS)}) lies in"
        raise DataError(f"{location}: no {what} {shown_path}. For files in sub-folders, name a glob such as folder/**")
    return [SourceFile(within(base, name), name, _format(data, name, location)) for name in inner]


def _split(location: str) -> tuple[str, str]:
    """Return (the fixed part of `location`, made absolute; its glob pattern or an empty string)."""
    local = is_local(location)
    if local:
        location = os.path.expanduser(location)
    parts = location.split("/")
    # In a URI, a question mark starts options of the file system.
    magic = "*[" if "://" in location and not location.startswith(PACKAGE_SCHEME) else "*?["
    first = next((index for index, part in enumerate(parts) if set(part) & set(magic)), len(parts))
    if local and os.path.exists(location):
        first = len(parts)  # brackets in a folder's name are no glob
    base, pattern = "/".join(parts[:first]), "/".join(parts[first:])
    if not local:
        return base, pattern
    root = "/" if location.startswith("/") else "."
    return os.path.abspath(base or root), pattern


def _files_below(filesystem: fs.FileSystem, path: str, pattern: str) -> list[str]:
    """Return the sorted paths below the folder `path` that match `pattern` or, without one, have a known ending."""
    infos = filesystem.get_file_info(fs.FileSelector(path, recursive="/" in pattern or "**" in pattern))
    inner = sorted(info.path[len(path) :].lstrip("/") for info in infos if info.type == fs.FileType.File)
    visible = [name for name in inner if not any(part.startswith(".") for part in name.split("/"))]
    if pattern:
        return [name for name in visible if _matches(name.split("/"), pattern.split("/"))]
    return [name for name in visible if _ending(name) in _ENDINGS]


def _matches(parts: list[str], pattern: list[str]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_matches(parts[skipped:], pattern[1:]) for skipped in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def _format(data: DataConfig, name: str, location: str) -> DataFormat:
    ending = _ending(name)
    layout = _ENDINGS.get(ending, DataFormat.AUTO) if data.format is DataFormat.AUTO else data.format
    if layout is DataFormat.AUTO:
        known, layouts = ", ".join(_ENDINGS), ", ".join(layout for layout in DataFormat if layout != DataFormat.AUTO)
        raise DataError(
            f"{location}: the ending of {name!r} does not tell its layout (known: {known}, each also with "
            f"{', '.join(_COMPRESSIONS)} behind it). Set {data.option('format')} to one of {layouts}"
        )
    if layout is DataFormat.PARQUET and PurePosixPath(name).suffix.lower() in _COMPRESSIONS:
        raise DataError(f"{location}: {name!r} is Parquet, which is compressed by itself: unpack it first")
    return layout


def _ending(name: str) -> str:
    """The ending that tells the layout: `.jsonl` of `dev.jsonl.gz`."""
    path = PurePosixPath(name.lower())
    return (path.with_suffix("") if path.suffix in _COMPRESSIONS else path).suffix

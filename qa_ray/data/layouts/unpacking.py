"""A file's bytes and lines, unpacked where it is compressed, and the share of it that is read."""

import bz2
import contextlib
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Iterator
from typing import IO, Any, cast

import pyarrow as pa

from qa_ray.data.files import SourceFile
from qa_ray.errors import DataError

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# What archives begin with.
_MARKS = {".gz": rb"\x1f\x8b", ".bz2": rb"BZh\d1AY&SY", ".zst": rb"\x28\xb5\x2f\xfd", ".xz": rb"\xfd7zXZ\x00"}
_BUFFER_BYTES = 1 << 20  # so much is asked of an object store at once
# What was unpacked since the last read is lost where an archive breaks off; blocks of zstd are multiples of this.
_UNPACKED_BYTES = 1 << 10


class _Counted(io.RawIOBase):
    """A stream of pyarrow's that says how much of it was read."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._read = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size: int = self._stream.readinto(buffer)
        self._read += size
        return size

    def tell(self) -> int:
        return self._read


@contextlib.contextmanager
def _opened(source: SourceFile) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Open a file; yield what it holds, unpacked, and the bytes as they are stored.

    Raises:
        DataError: what it holds cannot be unpacked.
    """
    filesystem, path = source.open()
    with filesystem.open_input_stream(path, compression=None) as stream:
        stored = io.BufferedReader(_Counted(stream), _BUFFER_BYTES)
        for ending, mark in _MARKS.items():
            if source.compression is None and re.match(mark, stored.peek(len(mark))):
                raise DataError(f"it is compressed: name it {source.name}{ending}")
        try:
            yield _unpacked(stored, source.compression), stored
        except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
            if source.compression is None:
                raise
            raise DataError(
                f"its {source.compression} archive is cut or damaged: {str(error).rstrip('.')}. Copy it again"
            ) from error


def _unpacked(stored: IO[bytes], compression: str | None) -> IO[bytes]:
    # Python's own give all that is there before an archive breaks off.
    if compression == "gzip":
        return cast(IO[bytes], gzip.GzipFile(fileobj=stored))
    if compression == "bzip2":
        return bz2.BZ2File(stored)
    if compression == "xz":
        return lzma.LZMAFile(stored)
    if compression == "zstd":
        return io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(stored, "r"), "zstd"), _UNPACKED_BYTES)
    return stored


def lines(source: SourceFile) -> Iterator[tuple[bytes, float]]:
    """Yield each line of a file, and the share of the file that is read with it.

    Raises:
        DataError: the file cannot be unpacked.
    """
    filesystem, path = source.open()
    size = filesystem.get_file_info(path).size or 1
    with _opened(source) as (stream, stored):
        head = True
        for line in stream:
            text = line.removeprefix(BYTE_ORDER_MARK) if head else line
            head = False
            yield text, min(1.0, stored.tell() / size)


def content(source: SourceFile) -> bytes:
    """All that a file holds.

    Raises:
        DataError: it cannot be unpacked.
    """
    with _opened(source) as (stream, _):
        return stream.read()


def beginning(source: SourceFile, num_bytes: int) -> bytes:
    """What a file begins with.

    Raises:
        DataError: it cannot be unpacked.
    """
    with _opened(source) as (stream, _):
        return stream.read(num_bytes)

"""The folder that takes the answers: a file for each part, and a manifest of what they were made of."""

import contextlib
import json
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pyarrow import fs

from qa_ray.errors import StorageError
from qa_ray.locations import is_local
from qa_ray.prediction.parts import lacks_rows
from qa_ray.storage.run_folder import guarded, read_file, write_file

MANIFEST = "predict.json"
ANSWERS = "answers"
"""Folder of the parts: beside the manifest, so that it can be read as a data set by itself."""
_SHOWN_DIFFERENCES = 5


@dataclass(frozen=True, slots=True)
class OutputFolder:
    """The folder, on a local disk or at a URI that pyarrow opens."""

    location: str

    def parts(self) -> dict[str, int]:
        """Return the names of the parts that are written, with their bytes.

        Raises:
            StorageError: the folder cannot be read.
        """
        with self._guard("read"):
            filesystem, path = self._open()
            selector = fs.FileSelector(f"{path}/{ANSWERS}", allow_not_found=True)
            found = filesystem.get_file_info(selector)
            # Whoever lost power after a rename may find an empty file.
            return {info.base_name: info.size for info in found if info.size and not info.base_name.startswith(".")}

    def write(self, name: str, content: bytes) -> None:
        """Write a file; whoever is killed meanwhile leaves it whole or not at all.

        Raises:
            StorageError: the folder cannot be written.
        """
        with self._guard("written"):
            filesystem, path = self._open()
            folder, _, file = f"{path}/{name}".rpartition("/")
            # Hidden from readers of the folder, and never the same for two who write.
            half = f"{folder}/.{file}.{uuid.uuid4().hex}"
            write_file(filesystem, f"{folder}/{file}", content, half=half)

    def manifest(self) -> dict[str, Any] | None:
        """Return the manifest, None if there is none.

        Raises:
            StorageError: it cannot be read.
        """
        with self._guard("read"):
            filesystem, path = self._open()
            content = read_file(filesystem, f"{path}/{MANIFEST}")
        if content is None:
            return None
        try:
            manifest: dict[str, Any] = json.loads(content)
        except ValueError as error:
            raise StorageError(f"--out={self.location}: {MANIFEST} cannot be used: {error}; choose another") from error
        return manifest

    def claim(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """Return the manifest of this folder, which is made by `wanted` where there is none yet.

        Raises:
            StorageError: what is there was made otherwise, or the folder cannot be read or written.
        """
        found = self.manifest()
        if found is None:
            if self.parts():
                raise StorageError(f"--out={self.location} holds parts without a {MANIFEST}: choose another --out")
            self.save_manifest(wanted)
            return wanted
        different = list(_differences(found, wanted))
        if different:
            more = ", ..." if len(different) > _SHOWN_DIFFERENCES else ""
            raise StorageError(
                f"--out={self.location} was begun with another model, other questions or settings "
                f"({', '.join(different[:_SHOWN_DIFFERENCES])}{more}): choose another --out, or delete that folder"
            )
        return found

    def save_manifest(self, content: dict[str, Any]) -> None:
        """Write the manifest.

        Raises:
            StorageError: the folder cannot be written.
        """
        self.write(MANIFEST, (json.dumps(content, indent=1) + "\n").encode())

    def sweep(self) -> None:
        """Delete what killed writers left half written, and the parts that lack rows: they are made anew.

        Raises:
            StorageError: it cannot be deleted; a question would then be there twice.
        """
        with self._guard("written"):
            filesystem, path = self._open()
            for info in filesystem.get_file_info(fs.FileSelector(f"{path}/{ANSWERS}", allow_not_found=True)):
                if info.base_name.startswith(".part-") or lacks_rows(info.base_name):
                    # Another job may have deleted it just now.
                    with contextlib.suppress(FileNotFoundError):
                        filesystem.delete_file(info.path)

    def _open(self) -> tuple[fs.FileSystem, str]:
        if is_local(self.location):
            return fs.LocalFileSystem(), os.path.abspath(self.location)
        filesystem, path = fs.FileSystem.from_uri(self.location)
        return filesystem, path.rstrip("/")

    def _guard(self, what: str) -> contextlib.AbstractContextManager[None]:
        return guarded(f"--out={self.location}", what)


def _differences(found: dict[str, Any], wanted: dict[str, Any]) -> Iterator[str]:
    """What differs of all that decides about the answers, in words."""
    if found.get("model", {}).get("fingerprint") != wanted["model"]["fingerprint"]:
        yield f"model: {found.get('model', {}).get('name')} there, {wanted['model']['name']} now"
    if found.get("input") != wanted["input"]:
        yield "the files of --data, or their sizes or times"
    there = found.get("settings", {})
    for name, value in wanted["settings"].items():
        if there.get(name) != value:
            yield f"{name}: {there.get(name)} there, {value} now"

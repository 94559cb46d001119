"""Checkpoints for tests of the store: how they are published, looked at and harmed."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from qa_ray.storage.checkpoint_store import MANIFEST, CheckpointStore
from qa_ray.storage.run_folder import RunFolder

OLD = {"state.pt": b"old state", "model/weights": b"old weights", "packed.gz": b"\x1f\x8b old"}
NEW = {"state.pt": b"new state, longer", "model/deep/weights": b"new weights", "empty": b""}


def large(step: int) -> dict[str, bytes]:
    """Files of a checkpoint, different at each step, one of them larger than what is copied at once."""
    tag = f"{step:08d}".encode()
    return {"state.pt": tag * 2**21, "model/weights": tag * 999, "model/config.json": tag, "empty": b""}


def save(folder: Path, files: dict[str, bytes]) -> Path:
    """Write the files below a local folder."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def publish(folder: RunFolder, name: str, files: dict[str, bytes]) -> None:
    """Publish the files as a checkpoint."""
    with tempfile.TemporaryDirectory() as source:
        CheckpointStore(folder).publish(name, save(Path(source), files))


def files_of(folder: Path) -> dict[str, bytes]:
    """Files of a fetched checkpoint, but for its manifest."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert found.pop(MANIFEST)
    return found


def newest(folder: RunFolder) -> tuple[str, dict[str, bytes]] | None:
    """Name and files of the newest checkpoint that is whole."""
    found = CheckpointStore(folder).fetch_newest()
    return found and (found[0], files_of(found[1]))


def place(folder: RunFolder, name: str) -> Path:
    """Where a checkpoint of a local run lies."""
    return Path(folder.uri) / "checkpoints" / name


def harm(path: Path, change: Callable[[bytes], bytes] | None) -> None:
    """Change a file, or delete it."""
    before = path.read_bytes()
    path.unlink()
    if change is not None:
        path.write_bytes(change(before))
        assert path.read_bytes() != before


def flip(data: bytes) -> bytes:
    """Change one bit in the middle."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]

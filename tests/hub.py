"""A Hugging Face Hub of our own: real HTTP on loopback, kept in memory, with failures on request.

It speaks the routes that huggingface_hub uses to write a model repository and to read it back, without Xet.
"""

import hashlib
import json
import os
import threading
import types
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from hub_state import CUT, LOST, OK, OWNER, READER, SIGNATURE, WRITER, Commit, Hub, Repo, entry, is_large, object_id
from huggingface_hub import constants


class Refusal(Exception):  # noqa: N818
    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        self.status, self.code, self.message = status, code, message


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are sent one after the other
    hub: Hub

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_PUT = do_HEAD = do_GET  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        self.query = parse_qs(parts.query)
        route, action, arguments = self._route([unquote(part) for part in parts.path.strip("/").split("/")])
        self.hub.requests.append((route, self.headers.get("Authorization")))
        failure = self.hub.failures[route].popleft() if self.hub.failures[route] else None
        if failure == CUT:
            self.rfile.read(min(1000, int(self.headers.get("Content-Length", 0))))
            return self._hang_up()
        self.body = self._read_body()
        try:
            if isinstance(failure, int) and failure != OK:
                raise Refusal(failure, message="as the test wants it")
            answer, headers = action(*arguments)
        except Refusal as error:
            return self._refuse(error)
        if failure == LOST:
            return self._hang_up()
        return self._answer(200, answer if isinstance(answer, bytes) else json.dumps(answer).encode(), headers)

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(2)

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _refuse(self, failure: Refusal) -> None:
        headers = {"X-Error-Message": failure.message, "Retry-After": "0" if failure.status == 503 else ""}
        if failure.code:
            headers["X-Error-Code"] = failure.code
        # Half of the Hub's own faults are told by a proxy, in HTML.
        html = failure.status >= 500
        body = b"<html>" if html else json.dumps({"error": failure.message, "url": self.hub.endpoint}).encode()
        headers["Content-Type"] = "text/html" if html else "application/json"
        self._answer(failure.status, body, {name: value for name, value in headers.items() if value})

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _route(self, path: list[str]) -> tuple[str, Any, tuple[str, ...]]:
        match (self.command, path):
            case "GET", ["api", "whoami-v2"]:
                return "whoami", self.whoami, ()
            case "POST", ["api", "validate-yaml"]:
                return "validate", self.validate, ()
            case "POST", ["api", "repos", "create"]:
                return "create", self.create, ()
            case "POST", [owner, name, "info", "lfs", "objects", "batch"]:
                return "batch", self.batch, (f"{owner}/{name.removesuffix('.git')}",)
            case "PUT", ["large", oid]:
                return "put", self.put, (oid,)
            case "POST", ["verify", oid]:
                return "verify", self.verify, (oid,)
            case "GET", ["api", "models", owner, name]:
                return "info", self.info, (f"{owner}/{name}", "main")
            case "GET", ["api", "models", owner, name, "revision", revision]:
                return "info", self.info, (f"{owner}/{name}", revision)
            case "GET", ["api", "models", owner, name, "refs"]:
                return "refs", self.refs, (f"{owner}/{name}",)
            case "GET", ["api", "models", owner, name, "tree", revision, *_]:
                return "tree", self.tree, (f"{owner}/{name}", revision)
            case "GET", ["api", "models", owner, name, "auth-check", "write"]:
                return "auth-check", self.auth_check, (f"{owner}/{name}",)
            case "POST", ["api", "models", owner, name, route, revision]:
                return route, getattr(self, route.replace("-", "_")), (f"{owner}/{name}", revision)
            case "GET" | "HEAD", [owner, name, "resolve", revision, *inner]:
                return "resolve", self.resolve, (f"{owner}/{name}", revision, "/".join(inner))
        return "unknown", self.unknown, ()

    def unknown(self) -> Any:
        raise Refusal(404, message=f"no such route: {self.command} {self.path}")

    def whoami(self) -> Any:
        self._require(READER, WRITER)
        return self.hub.account(WRITER in self.headers["Authorization"]), {}

    def auth_check(self, repo_id: str) -> Any:
        self._repo(repo_id)
        self._require(WRITER)
        return {}, {}

    def validate(self) -> Any:
        if "license: nonsense" in json.loads(self.body)["content"]:
            raise Refusal(400, message='"license" must be one of apache-2.0, mit')
        return {"errors": [], "warnings": []}, {}

    def create(self) -> Any:
        self._require(WRITER)
        asked = json.loads(self.body)
        repo_id = f"{asked['organization'] or OWNER}/{asked['name']}"
        if not repo_id.startswith(f"{OWNER}/"):
            raise Refusal(403, message=f"you may not create a model under {asked['organization']}")
        if repo_id in self.hub.repos:
            raise Refusal(409, message="you already created this repo")
        self.hub.add_repo(repo_id, private=asked.get("visibility") == "private")
        return {"url": f"{self.hub.endpoint}/{repo_id}"}, {}

    def info(self, repo_id: str, revision: str) -> Any:
        repo, commit = self._at(repo_id, revision)
        siblings = [{"rfilename": name} for name in sorted(commit.files)]
        return {"id": repo_id, "sha": commit.oid, "private": repo.private, "siblings": siblings, "tags": []}, {}

    def refs(self, repo_id: str) -> Any:
        repo = self._repo(repo_id)
        branches = [(name, "heads", commits[-1].oid) for name, commits in repo.branches.items()]
        tags = [(name, "tags", oid) for name, oid in repo.tags.items()]
        found = [{"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": oid} for name, kind, oid in branches]
        tagged = [{"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": oid} for name, kind, oid in tags]
        return {"branches": found, "tags": tagged, "converts": []}, {}

    def tree(self, repo_id: str, revision: str) -> Any:
        _, commit = self._at(repo_id, revision)
        return [entry(name, content) for name, content in sorted(commit.files.items())], {}

    def paths_info(self, repo_id: str, revision: str) -> Any:
        _, commit = self._at(repo_id, revision)
        paths = parse_qs(self.body.decode())["paths"]
        return [entry(name, commit.files[name]) for name in paths if name in commit.files], {}

    def preupload(self, repo_id: str, revision: str) -> Any:
        self._require(WRITER)
        _, commit = self._at(repo_id, revision)
        files = []
        for file in json.loads(self.body)["files"]:
            name, here = file["path"], commit.files.get(file["path"])
            mode = "lfs" if is_large(name) else "regular"
            oid = None if here is None else object_id(name, here)
            files.append({"path": name, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return {"files": files}, {}

    def batch(self, repo_id: str) -> Any:
        self._require(WRITER)
        objects = []
        for wanted in json.loads(self.body)["objects"]:
            oid = wanted["oid"]
            actions = {
                "upload": {"href": f"{self.hub.endpoint}/large/{oid}?X-Amz-Signature={SIGNATURE}"},
                "verify": {"href": f"{self.hub.endpoint}/verify/{oid}"},
            }
            objects.append(wanted | ({} if oid in self.hub.large else {"actions": actions}))
        return {"transfer": "basic", "objects": objects}, {}

    def put(self, oid: str) -> Any:
        if self.query != {"X-Amz-Signature": [SIGNATURE]} or self.headers.get("Authorization"):
            raise Refusal(403, message="the address is signed, and the store must not see the token")
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise Refusal(400, message="BadDigest")
        self.hub.large[oid] = self.body
        return {}, {}

    def verify(self, oid: str) -> Any:
        if oid not in self.hub.large:
            raise Refusal(404, message="not there")
        return {}, {}

    def commit(self, repo_id: str, revision: str) -> Any:
        self._require(WRITER)
        repo, head = self._at(repo_id, revision)
        lines = [json.loads(line) for line in self.body.splitlines()]
        header = lines[0]["value"]
        if header.get("parentCommit", head.oid) != head.oid:
            raise Refusal(412, message="a commit has happened since")
        files = dict(head.files)
        for line in lines[1:]:
            self.hub.apply(files, line["key"], line["value"])
        commit = repo.add(revision, header["summary"], files)
        return {"commitUrl": f"{self.hub.endpoint}/{repo_id}/commit/{commit.oid}", "commitOid": commit.oid}, {}

    def branch(self, repo_id: str, branch: str) -> Any:
        self._require(WRITER)
        repo, head = self._at(repo_id, "main")
        if branch in repo.branches:
            raise Refusal(409, message="the branch exists")
        repo.branches[branch] = [head]
        return {}, {}

    def tag(self, repo_id: str, revision: str) -> Any:
        self._require(WRITER)
        repo, commit = self._at(repo_id, revision)
        name = json.loads(self.body)["tag"]
        if name in repo.tags:
            raise Refusal(409, message="the tag exists")
        repo.tags[name] = commit.oid
        return {}, {}

    def resolve(self, repo_id: str, revision: str, name: str) -> Any:
        _, commit = self._at(repo_id, revision)
        if name not in commit.files:
            raise Refusal(404, "EntryNotFound", "no such file")
        content = commit.files[name]
        return content, {"X-Repo-Commit": commit.oid, "ETag": f'"{object_id(name, content)}"'}

    def _require(self, *tokens: str) -> None:
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token not in (READER, WRITER):
            raise Refusal(401, message="Invalid credentials in Authorization header")
        if token not in tokens:
            raise Refusal(403, message="your token has no write access")

    def _repo(self, repo_id: str) -> Repo:
        repo = self.hub.repos.get(repo_id)
        token = self.headers.get("Authorization")
        if token:
            self._require(READER, WRITER)
        if repo is None or repo.kind != "model" or (repo.private and not token):
            raise Refusal(404 if token else 401, "RepoNotFound", "Repository not found")
        return repo

    def _at(self, repo_id: str, revision: str) -> tuple[Repo, Commit]:
        repo = self._repo(repo_id)
        commit = repo.at(revision)
        if commit is None:
            raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return repo, commit


@contextmanager
def hub_server() -> Iterator[Hub]:
    """Start an empty Hub."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"hub": hub}))
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def connected_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Start an empty Hub that huggingface_hub in this process talks to, as its owner, without waiting in between."""
    monkeypatch.setattr("huggingface_hub.utils._http.time", types.SimpleNamespace(sleep=lambda seconds: None))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", os.devnull)
    monkeypatch.setenv("HF_TOKEN", WRITER)
    with hub_server() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        yield server

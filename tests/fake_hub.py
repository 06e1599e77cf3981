"""A Hugging Face hub on this machine that misbehaves when told to, and a machine whose commands talk to it."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

from checkpoints import COMMIT
from conftest import ROOT

Fault = Literal["cut", "reset", "wrong", "500"]
"""Of one download: an orderly end or a broken connection after half of the file, other bytes of the same size, 500."""

_LARGE = (".bin", ".h5", ".msgpack", ".onnx", ".pt", ".safetensors")  # kept in Git LFS
_STRANGERS_ARE_TOLD = "unauthenticated; You are sending unauthenticated requests to the HF Hub."


@dataclass(frozen=True)
class Request:
    """What the hub was asked for."""

    method: str
    path: str
    start: int
    """The first byte wanted; 0 without a Range."""
    token: str
    """What it was authorised with, or ""."""

    @property
    def file(self) -> str:
        """The file of the repository that was asked for, or ""."""
        return self.path.partition("/resolve/")[2].partition("/")[2]


@dataclass
class Repository:
    """A repository with one commit, which is its branch main."""

    files: dict[str, bytes]
    commit: str = COMMIT
    refusal: tuple[int, str] | None = None
    """(status, X-Error-Code) of the answer to anything about it."""
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    """By file: what goes wrong with the next downloads, one after the other."""


class FakeHub:
    """A hub, serving from the `with` statement on."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.requests: list[Request] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, self))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> FakeHub:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def add(self, name: str, folder: Path, extra: Mapping[str, bytes] | None = None) -> Repository:
        """Publish what lies in a folder, and more files, as owner/name."""
        files = {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
        self.repositories[name] = Repository({**files, **(extra or {})})
        return self.repositories[name]

    @property
    def downloads(self) -> list[str]:
        """Each file that was sent, or begun to be, in order of its name."""
        return sorted(request.file for request in self.requests if request.method == "GET" and request.file)


class _Handler(BaseHTTPRequestHandler):
    # HTTP/1.0, the default, ends each connection with its answer: no thread waits for another request.

    def __init__(self, hub: FakeHub, *args: Any) -> None:
        self._hub = hub
        super().__init__(*args)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on stderr."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        address = urlsplit(self.path)
        path, query = unquote(address.path).strip("/"), parse_qs(address.query)
        start = int(self.headers.get("Range", "bytes=0-").partition("=")[2].partition("-")[0])
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        self._hub.requests.append(Request(self.command, path, start, token))
        parts = path.removeprefix("api/models/").split("/")
        repository = self._hub.repositories.get("/".join(parts[:2]))
        if repository is None:
            return self._refuse(404, "RepoNotFound")
        if repository.refusal:
            return self._refuse(*repository.refusal)
        kind, revision = [*parts[2:4], "revision", "main"][:2] if len(parts) < 4 else parts[2:4]
        if revision not in ("main", repository.commit):
            return self._refuse(404, "RevisionNotFound")
        if kind == "resolve":
            return self._send_file(repository, "/".join(parts[4:]), start)
        if kind == "tree":
            return self._send_json([_listed(name, data, "path", "oid") for name, data in repository.files.items()])
        blobs = bool(query.get("blobs"))
        return self._send_json({
            "id": "/".join(parts[:2]),
            "sha": repository.commit,
            "siblings": [
                _listed(name, data, "rfilename", "blobId") if blobs else {"rfilename": name}
                for name, data in repository.files.items()
            ],
        })  # fmt: skip

    def _send_json(self, value: object) -> None:
        body = json.dumps(value).encode()
        self._send_head(200, {"Content-Type": "application/json", "Content-Length": len(body)})
        self.wfile.write(body)

    def _send_file(self, repository: Repository, name: str, start: int) -> None:
        data = repository.files.get(name)
        if data is None:
            return self._refuse(404, "EntryNotFound")
        etag = _sha256(data) if name.endswith(_LARGE) else _git_sha1(data)
        headers: dict[str, object] = {"X-Repo-Commit": repository.commit, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
        if name.endswith(_LARGE):
            headers |= {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": len(data)}
        if self.command == "HEAD":
            return self._send_head(200, {**headers, "Content-Length": len(data)})
        faults = repository.faults.get(name)
        fault = faults.pop(0) if faults else None
        if fault == "500":
            return self._refuse(500, "")
        if fault == "wrong":
            data = data[:-64] + bytes(byte ^ 1 for byte in data[-64:])
        part = data[start:]
        if "Range" in self.headers:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self._send_head(206 if "Range" in self.headers else 200, {**headers, "Content-Length": len(part)})
        self.wfile.write(part[: len(part) // 2] if fault in ("cut", "reset") else part)
        if fault == "reset":
            # Closed with nothing to linger for, a connection is reset and not ended.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())
        return None

    def _refuse(self, status: int, code: str) -> None:
        body = json.dumps({"error": "refused"}).encode()
        self._send_head(status, {"Content-Length": len(body), **({"X-Error-Code": code} if code else {})})
        if self.command == "GET":
            self.wfile.write(body)

    def _send_head(self, status: int, headers: Mapping[str, object]) -> None:
        self.send_response(status)
        for name, value in {**headers, "X-HF-Warning": _STRANGERS_ARE_TOLD}.items():
            self.send_header(name, str(value))
        self.end_headers()


def _listed(name: str, data: bytes, name_field: str, id_field: str) -> dict[str, object]:
    """A file as the hub's interface describes it."""
    described: dict[str, object] = {"type": "file", name_field: name, "size": len(data), id_field: _git_sha1(data)}
    if name.endswith(_LARGE):
        # One interface calls the sum oid, the other sha256.
        described["lfs"] = {"oid": _sha256(data), "sha256": _sha256(data), "size": len(data), "pointerSize": 134}
    return described


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def failure(self) -> str:
        """The one line on stderr of a command that failed."""
        lines = self.err.splitlines()
        assert (self.code, len(lines)) == (1, 1), self.err
        assert lines[0].startswith("error: ")
        return lines[0].removeprefix("error: ")


@dataclass(frozen=True)
class Machine:
    """A machine with faqsearch on it and nothing downloaded yet."""

    folder: Path
    endpoint: str

    @property
    def cache(self) -> Path:
        """Where its downloads lie."""
        return self.folder / "huggingface" / "hub"

    def environment(self, **more: str) -> dict[str, str]:
        """The environment of its commands: none of whoever runs the tests, no proxy, and not offline."""
        ours = ("FAQSEARCH_", "HF_", "HUGGING", "TRANSFORMERS_")
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(ours) and not name.lower().endswith("_proxy")
        }
        home, cache = self.folder / "faqsearch", self.folder / "huggingface"
        ours_now = {"HF_ENDPOINT": self.endpoint, "HF_HOME": str(cache), "FAQSEARCH_HOME": str(home)}
        return {**kept, **ours_now, "FAQSEARCH_PRECISION": "float32", **more}

    def run(self, *args: object, **environment: str) -> Done:
        """Run a command of the installed program."""
        done = subprocess.run(
            [sys.executable, "-m", "faqsearch", *map(str, args)],
            capture_output=True,
            cwd=ROOT,
            env=self.environment(**environment),
            check=False,
            encoding="utf-8",
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Done(done.returncode, done.stdout, done.stderr)

"""The routes with which the Hub's client makes a dataset and commits to it: small files in the commit, large by LFS."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Repository:
    """A dataset on the emulated Hub: its files, its commits, and what goes wrong on purpose."""

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)


@dataclass
class Hub:
    """What the emulated Hub holds.

    Attributes:
        datasets: Name -> dataset.
        loses: Files that it forgets although they were committed.
        token: The only token that may write.
    """

    datasets: dict[str, Repository] = field(default_factory=dict)
    loses: set[str] = field(default_factory=set)
    token: str = "hf_test"
    objects: dict[str, bytes] = field(default_factory=dict)


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_GET(self) -> None:
        name = "/".join(self.path.partition("?")[0].removeprefix("/api/datasets/").split("/")[:2])
        held = self.hub.datasets.get(name)
        if held is None:
            self._send(404, {}, {"X-Error-Code": "RepoNotFound"})
            return
        siblings = [{"rfilename": path, "size": len(content)} for path, content in held.files.items()]
        self._send(
            200, {"id": name, "private": held.private, "sha": held.commits[-1], "tags": [], "siblings": siblings}
        )

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        path = self.path.partition("?")[0]
        if path == "/api/validate-yaml":
            self._send(200, {"errors": [], "warnings": []})
        elif self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            self._send(403, {"error": "You don't have the rights to write here"})
        elif path == "/api/repos/create":
            self._create(json.loads(body))
        elif path.endswith("/info/lfs/objects/batch"):
            self._batch(json.loads(body))
        elif "/preupload/" in path:
            self._preupload(json.loads(body))
        else:
            self._commit("/".join(path.removeprefix("/api/datasets/").split("/")[:2]), body)

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.hub.objects[self.path.rpartition("/")[2]] = content
        self._send(200, {})

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        address = f"http://{self.headers['Host']}/datasets/{name}"
        known = name in self.hub.datasets
        if not known:
            private = asked.get("private") or asked.get("visibility") == "private"
            self.hub.datasets[name] = Repository(bool(private), commits=["0" * 40])
        self._send(409 if known else 200, {"url": address, "error": "there already"})

    def _preupload(self, asked: dict[str, Any]) -> None:
        files = [
            {"path": one["path"], "uploadMode": "lfs" if one["path"].endswith(".parquet") else "regular"}
            for one in asked["files"]
        ]
        self._send(200, {"files": [{**one, "shouldIgnore": False} for one in files]})

    def _batch(self, asked: dict[str, Any]) -> None:
        address = f"http://{self.headers['Host']}/objects"
        objects = [{**one, "actions": {"upload": {"href": f"{address}/{one['oid']}"}}} for one in asked["objects"]]
        self._send(200, {"transfer": "basic", "objects": objects})

    def _commit(self, name: str, body: bytes) -> None:
        held = self.hub.datasets[name]
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                held.files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                content = self.hub.objects[value["oid"]]
                assert hashlib.sha256(content).hexdigest() == value["oid"]
                held.files[value["path"]] = content
        for path in self.hub.loses:
            held.files.pop(path, None)
        held.commits.append(hashlib.sha1(body).hexdigest())
        address = f"http://{self.headers['Host']}/datasets/{name}/commit/{held.commits[-1]}"
        self._send(200, {"success": True, "commitUrl": address, "commitOid": held.commits[-1]})

    def _send(self, status: int, answer: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Say nothing."""


@contextlib.contextmanager
def serve(hub: Hub) -> Iterator[str]:
    """The address of an emulated Hub that can be written to."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()

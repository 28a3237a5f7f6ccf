"""A Hub on the loopback interface, with the routes that the Hub's client uses to read a model."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class _Handler(BaseHTTPRequestHandler):
    models: dict[str, Path | str]

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = self.path.partition("?")[0].removeprefix("/api/models").strip("/")
        name = next((name for name in self.models if f"{path}/".startswith(f"{name}/")), None)
        if name is None:
            self._refuse(404, "RepoNotFound")
            return
        held = self.models[name]
        if isinstance(held, str):
            self._refuse({"GatedRepo": 403, "RepoNotFound": 401}.get(held, 500), held)
            return
        parts = path.removeprefix(name).strip("/").split("/")
        action, revision, *rest = parts if len(parts) > 1 else ("revision", "main")
        if revision not in ("main", COMMIT):
            self._refuse(404, "RevisionNotFound")
        elif action == "resolve":
            self._file(held / "/".join(rest), body=body)
        else:
            self._listing(name, held, tree=action == "tree")

    def _listing(self, name: str, folder: Path, *, tree: bool) -> None:
        files = sorted(file for file in folder.iterdir() if file.is_file())
        if tree:
            answer: object = [
                {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": "0" * 40} for file in files
            ]
        else:
            siblings = [{"rfilename": file.name} for file in files]
            answer = {"id": name, "sha": COMMIT, "private": False, "tags": [], "siblings": siblings}
        self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"}, body=True)

    def _file(self, file: Path, *, body: bool) -> None:
        if not file.is_file():
            self._refuse(404, "EntryNotFound")
            return
        content, status = file.read_bytes(), 200
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}
        asked = self.headers.get("Range")
        if asked:
            start, _, end = asked.removeprefix("bytes=").partition("-")
            headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
            content, status = content[int(start) : int(end) + 1 if end else None], 206
        self._send(status, content, headers, body=body)

    def _refuse(self, status: int, code: str) -> None:
        self._send(status, b"{}", {"X-Error-Code": code, "X-Error-Message": code}, body=True)

    def _send(self, status: int, content: bytes, headers: dict[str, str], *, body: bool) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body and self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Say nothing."""


@contextlib.contextmanager
def serve(models: dict[str, Path | str]) -> Iterator[str]:
    """The address of a Hub that holds `models`: name -> folder, or the error code that it answers with."""
    handler = type("Handler", (_Handler,), {"models": models})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()

"""A Hub on the loopback interface, with the routes that its clients use to read models and datasets."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass(frozen=True)
class Repo:
    """A repository.

    Attributes:
        folder: Its files at the branch main, which is COMMIT.
        revisions: Other branches and commits -> their files.
        token: Who has it not is told that there is no such repository.
        error: The error code that every request is answered with, such as GatedRepo.
    """

    folder: Path
    revisions: Mapping[str, Path] = field(default_factory=dict)
    token: str | None = None
    error: str | None = None

    def at(self, revision: str) -> tuple[str, Path] | None:
        """The commit and the files of a revision."""
        if revision in ("main", COMMIT):
            return COMMIT, self.folder
        if revision in self.revisions:
            return revision if len(revision) == 40 else hashlib.sha1(revision.encode()).hexdigest(), self.revisions[
                revision
            ]
        known = {hashlib.sha1(name.encode()).hexdigest(): folder for name, folder in self.revisions.items()}
        return (revision, known[revision]) if revision in known else None


class _Handler(BaseHTTPRequestHandler):
    repos: dict[str, Repo]  # by the path below the address: "someone/model", "datasets/someone/rows"

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_POST(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self._posted = self.rfile.read(length)
        path = unquote(self.path.partition("?")[0]).removeprefix("/api").removeprefix("/models").strip("/")
        name = next((name for name in self.repos if f"{path}/".startswith(f"{name}/")), None)
        repo = self.repos[name] if name else None
        if name is None or repo is None or (repo.token and self.headers.get("Authorization") != f"Bearer {repo.token}"):
            self._refuse(401 if repo else 404, "RepoNotFound")
            return
        if repo.error:
            self._refuse({"GatedRepo": 403, "RepoNotFound": 401}.get(repo.error, 500), repo.error)
            return
        parts = path.removeprefix(name).strip("/").split("/")
        action, revision, *rest = parts if len(parts) > 1 else ("revision", "main")
        found = repo.at(revision)
        if found is None:
            self._refuse(404, "RevisionNotFound")
            return
        commit, folder = found
        if action == "resolve":
            self._file(folder / "/".join(rest), commit, body=body)
        elif action == "tree":
            self._tree(folder, "/".join(rest))
        elif action == "paths-info":
            asked = (
                json.loads(self._posted)["paths"]
                if self._posted.startswith(b"{")
                else parse_qs(self._posted.decode())["paths"]
            )
            self._json([_entry(folder, folder / name) for name in asked if name and (folder / name).exists()])
        else:
            siblings = [{"rfilename": path.relative_to(folder).as_posix()} for path in _files(folder)]
            self._json(
                {
                    "id": name.removeprefix("datasets/"),
                    "sha": commit,
                    "private": False,
                    "tags": [],
                    "siblings": siblings,
                }
            )

    def _tree(self, folder: Path, below: str) -> None:
        if not (folder / below).is_dir():
            self._refuse(404, "EntryNotFound")
            return
        deep = "true" in parse_qs(self.path.partition("?")[2].lower()).get("recursive", [])
        self._json(
            [
                _entry(folder, path)
                for path in sorted((folder / below).rglob("*") if deep else (folder / below).iterdir())
            ]
        )

    def _file(self, file: Path, commit: str, *, body: bool) -> None:
        if not file.is_file():
            self._refuse(404, "EntryNotFound")
            return
        content, status = file.read_bytes(), 200
        headers = {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}
        asked = self.headers.get("Range")
        if asked:
            start, _, end = asked.removeprefix("bytes=").partition("-")
            headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
            content, status = content[int(start) : int(end) + 1 if end else None], 206
        self._send(status, content, headers, body=body)

    def _json(self, answer: object) -> None:
        self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"}, body=True)

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


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _entry(folder: Path, path: Path) -> dict[str, object]:
    size = path.stat().st_size if path.is_file() else 0
    name = path.relative_to(folder).as_posix()
    return {"type": "file" if path.is_file() else "directory", "path": name, "size": size, "oid": "0" * 40}


@contextlib.contextmanager
def serve(models: Mapping[str, Path | str], datasets: Mapping[str, Repo] | None = None) -> Iterator[str]:
    """The address of a Hub with `models`, name -> folder or the error code that it answers with, and `datasets`."""
    repos = {
        name: Repo(Path(), error=held) if isinstance(held, str) else Repo(held) for name, held in models.items()
    } | {f"datasets/{name}": repo for name, repo in (datasets or {}).items()}
    handler = type("Handler", (_Handler,), {"repos": repos})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()

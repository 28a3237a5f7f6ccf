"""A Hub on the loopback interface, with the routes that its clients use to read: models, datasets, accounts, prices."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def account(
    name: str, role: str = "write", *, orgs: Mapping[str, str] | None = None, **scopes: list[str]
) -> dict[str, object]:
    """What whoami-v2 answers: an account, its token's role, its role in organisations, and a fine token's scopes."""
    scoped = [
        {"entity": {"_id": "1", "type": "user", "name": entity}, "permissions": permissions}
        for entity, permissions in scopes.items()
    ]
    fine = (
        {"fineGrained": {"canReadGatedRepos": False, "global": [], "scoped": scoped}} if role == "fineGrained" else {}
    )
    return {
        "type": "user",
        "name": name,
        "canPay": True,
        "orgs": [{"type": "org", "name": org, "roleInOrg": held} for org, held in (orgs or {}).items()],
        "auth": {"type": "access_token", "accessToken": {"displayName": "test", "role": role, **fine}},
    }


def flavor(name: str, dollars_an_hour: float, ram: str, accelerator: tuple[str, int, str] | None) -> dict[str, object]:
    """One entry of jobs/hardware, billed by the minute; `accelerator` is model, quantity and memory of all."""
    chip = None
    if accelerator:
        model, quantity, memory = accelerator
        maker = {"type": "gpu", "manufacturer": "Nvidia"}
        chip = {**maker, "model": model, "quantity": str(quantity), "vram": memory}
    return {
        "name": name,
        "prettyName": name,
        "cpu": "8 vCPU",
        "ram": ram,
        "ephemeralStorage": "200 GB",
        "accelerator": chip,
        "unitCostMicroUSD": round(dollars_an_hour / 60 * 1e6),
        "unitCostUSD": round(dollars_an_hour / 60, 6),
        "unitLabel": "minute",
    }


HARDWARE = (
    flavor("cpu-basic", 0.01, "16 GB", None),
    flavor("t4-small", 0.40, "15 GB", ("T4", 1, "16 GB")),
    flavor("a10g-small", 1.00, "15 GB", ("A10G", 1, "24 GB")),
    flavor("a10g-large", 1.50, "46 GB", ("A10G", 1, "24 GB")),
    flavor("l40sx1", 1.80, "62 GB", ("L40S", 1, "48 GB")),
    flavor("a100-large", 2.50, "142 GB", ("A100", 1, "80 GB")),
    flavor("h200x8", 40.00, "2048 GB", ("H200", 8, "1128 GB")),
)
"""A part of what Jobs offered in November 2026; what its documentation doesn't give (cores, disk) is made up."""


@dataclass(frozen=True)
class Repo:
    """A repository.

    Attributes:
        folder: Its files at the branch main, which is COMMIT.
        revisions: Other branches and commits -> their files.
        token: Who has it not is told that there is no such repository.
        error: The error code that every request is answered with, such as GatedRepo.
        private: Whether only `readers` and `writers` see it.
        gated: Whether only `readers` and `writers` get its files; everybody sees that it is there.
        readers: Tokens that may read it where it is private or gated.
        writers: Tokens that may write to it.
    """

    folder: Path
    revisions: Mapping[str, Path] = field(default_factory=dict)
    token: str | None = None
    error: str | None = None
    private: bool = False
    gated: bool = False
    readers: frozenset[str] = frozenset()
    writers: frozenset[str] = frozenset()

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
    accounts: Mapping[str, dict[str, object]]  # by token
    hardware: Sequence[dict[str, object]]

    _posted: bytes

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
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token and self.accounts and token not in self.accounts:
            self._refuse(401, "Invalid credentials in Authorization header")
            return
        if path in ("whoami-v2", "jobs/hardware"):
            self._service(path, token)
            return
        name = next((name for name in self.repos if f"{path}/".startswith(f"{name}/")), None)
        repo = self.repos[name] if name else None
        parts = path.removeprefix(name or "").strip("/").split("/")
        refusal = (404, "RepoNotFound") if repo is None else _refusal(repo, token, parts)
        if name is None or repo is None or refusal:
            self._refuse(*(refusal or (404, "RepoNotFound")))
        elif parts[0] == "auth-check":
            self._json({})
        else:
            self._repository(name, repo, parts, body=body)

    def _repository(self, name: str, repo: Repo, parts: list[str], *, body: bool) -> None:
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
            about = {"private": repo.private, "gated": "auto" if repo.gated else False, "tags": []}
            self._json({"id": name.removeprefix("datasets/"), "sha": commit, **about, "siblings": siblings})

    def _service(self, path: str, token: str) -> None:
        if path == "jobs/hardware":
            self._json(list(self.hardware))
        elif token in self.accounts:
            self._json(self.accounts[token])
        else:
            self._refuse(401, "")

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


def _refusal(repo: Repo, token: str, parts: list[str]) -> tuple[int, str] | None:
    """Status and error code of what may not be seen, read or written with this token."""
    may_read = token in repo.readers | repo.writers
    if repo.token and token != repo.token:
        return 401, "RepoNotFound"
    if repo.error:
        return {"GatedRepo": 403, "RepoNotFound": 401}.get(repo.error, 500), repo.error
    if repo.private and not may_read:
        return 404 if token else 401, "RepoNotFound"
    if repo.gated and not may_read and parts[0] in ("auth-check", "resolve"):
        return 403, "GatedRepo"
    return (403, "") if parts == ["auth-check", "write"] and token not in repo.writers else None


def _repo(held: Path | str | Repo) -> Repo:
    return held if isinstance(held, Repo) else Repo(Path(), error=held) if isinstance(held, str) else Repo(held)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _entry(folder: Path, path: Path) -> dict[str, object]:
    size = path.stat().st_size if path.is_file() else 0
    name = path.relative_to(folder).as_posix()
    return {"type": "file" if path.is_file() else "directory", "path": name, "size": size, "oid": "0" * 40}


@contextlib.contextmanager
def serve(
    models: Mapping[str, Path | str | Repo],
    datasets: Mapping[str, Repo] | None = None,
    *,
    accounts: Mapping[str, dict[str, object]] | None = None,
    hardware: Sequence[dict[str, object]] = HARDWARE,
) -> Iterator[str]:
    """The address of a Hub.

    Args:
        models: Name -> repository, its folder, or the error code that it answers with.
        datasets: Name -> repository.
        accounts: Token -> account.
        hardware: What Jobs offers, with prices.
    """
    repos = {name: _repo(held) for name, held in models.items()} | {
        f"datasets/{name}": repo for name, repo in (datasets or {}).items()
    }
    handler = type("Handler", (_Handler,), {"repos": repos, "accounts": accounts or {}, "hardware": hardware})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()

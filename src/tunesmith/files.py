"""Writing files so that a crash never leaves half of one, and fingerprints of their content."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from .errors import EnvironmentLacksError

_CHUNK = 1 << 20
# FileNotFoundError: what /proc and the like answer to making a folder.
_IN_THE_WAY = (PermissionError, NotADirectoryError, FileExistsError, IsADirectoryError, FileNotFoundError)


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusal to write under `path` into an actionable error.

    Raises:
        EnvironmentLacksError: the disk is full, or the place is not writable.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise EnvironmentLacksError(
                f"The disk is full while writing {path}.",
                why="The file would be incomplete, so it was not kept; what was saved before is untouched.",
                fix="Free space or choose another folder with --output, then run the same command again.",
            ) from error
        if isinstance(error, _IN_THE_WAY) or error.errno in (errno.EROFS, errno.ENAMETOOLONG):
            raise EnvironmentLacksError(
                f"Cannot write to {path}: {error.strerror}.",
                why="It is not writable for this user, or something else stands in its place.",
                fix="Choose another folder with --output, or change its permissions.",
            ) from error
        raise


def make_folder(path: Path) -> Path:
    """Create `path` and its parents.

    Raises:
        EnvironmentLacksError: the folder cannot be created or written to.
    """
    with disk_errors(path):
        path.mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return path


def write_atomic(path: Path, content: str | bytes) -> Path:
    """Write `content` to `path` through a temporary file, so that readers see the old or the new file, never half.

    Raises:
        EnvironmentLacksError: disk full or not writable.
    """
    data = content.encode() if isinstance(content, str) else content
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            # mkstemp makes files private; a result is meant to be read like any other file of the user.
            os.chmod(name, 0o666 & ~_umask())
            os.replace(name, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise
    return path


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextlib.contextmanager
def exclusive(path: Path, *, patience: float = 0.0) -> Iterator[bool]:
    """Hold the lock file `path` while inside; gives whether it could be had within `patience` seconds.

    It falls when the process ends, however it ends.
    """
    deadline = time.monotonic() + patience
    with disk_errors(path), path.open("a") as file:
        while not (held := _locked(file)) and time.monotonic() < deadline:
            time.sleep(0.05)
        yield held


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, as hexadecimal text."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()

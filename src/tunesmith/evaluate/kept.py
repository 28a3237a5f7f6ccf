"""What an evaluation keeps as it goes, so that one that was cut off goes on where it stopped."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..files import disk_errors, make_folder


class Kept:
    """Values by key in a JSON Lines file; a line that a crash or a full disk cut short is as if it had never been
    written.

    Threads may share one; processes may not.
    """  # fmt: skip

    def __init__(self, path: Path, worth: Callable[[Any], bool] | None = None) -> None:
        """Read what is there; the folder is made.

        Args:
            path: The file.
            worth: Whether a value is worth keeping on disk (default: all are); others are known as long as this is.

        Raises:
            EnvironmentLacksError: it can't be written.
        """
        make_folder(path.parent)
        self._path, self._worth, self._lock, self._values = path, worth, threading.Lock(), dict[str, Any]()
        whole = path.read_bytes() if path.exists() else b""
        for line in whole.splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):  # cut short: it is asked for again
                entry = json.loads(line)
                self._values[entry["key"]] = entry["value"]
        if whole and not whole.endswith(b"\n"):
            os.truncate(path, whole.rfind(b"\n") + 1)
        self._earlier = frozenset(self._values)

    @property
    def earlier(self) -> frozenset[str]:
        """Keys of the values that were there already, of an evaluation that was cut off."""
        return self._earlier

    def get(self, key: str) -> Any:
        """The value of a key, None where there is none."""
        return self._values.get(key)

    def put(self, key: str, value: Any) -> None:
        """Keep a value that JSON has words for; it is on disk when this returns, if it is worth it.

        Raises:
            EnvironmentLacksError: the disk is full.
        """
        if self._worth is not None and not self._worth(value):
            self._values[key] = value
            return
        line = json.dumps({"key": key, "value": value}, ensure_ascii=False) + "\n"
        with self._lock, disk_errors(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
            self._values[key] = value

    def forget(self) -> None:
        """Drop all values, on disk, too."""
        with self._lock, disk_errors(self._path):
            self._path.unlink(missing_ok=True)
            self._values, self._earlier = {}, frozenset()


def key_of(*parts: Any) -> str:
    """A key that no other parts have: the SHA-256 of them as JSON."""
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False, sort_keys=True, default=str).encode()).hexdigest()

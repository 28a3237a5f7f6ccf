"""The working folder of a preparation: what each unit of work wrote, and which units are done.

A unit (a chunk of rows, a bucket of digests, a band of signatures) writes its files through temporary names and its
marker last. So a killed run loses the unit it was at, and any number of tasks, now or later, share the rest.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ...files import write_atomic

if TYPE_CHECKING:
    import numpy as np

NAME: Final = ".work"


class Work:
    """The working folder `.work` of the dataset's folder."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.folder = output / NAME

    def path(self, kind: str, unit: str, ending: str = "jsonl") -> Path:
        """The file of one kind that a unit writes."""
        return self.folder / kind / f"{unit}.{ending}"

    def counts(self, step: str, unit: str) -> dict[str, Any] | None:
        """What the marker of a finished unit says; None while it isn't finished."""
        try:
            found: dict[str, Any] = json.loads(self.path(f"done/{step}", unit, "json").read_bytes())
        except FileNotFoundError:
            return None
        return found

    def done(self, step: str, unit: str, counts: dict[str, Any]) -> None:
        """Mark a unit as finished, with what it counted."""
        write_atomic(self.path(f"done/{step}", unit, "json"), json.dumps(counts, sort_keys=True))

    def units(self, step: str) -> list[str]:
        """The finished units of a step, in order."""
        return sorted(file.stem for file in (self.folder / "done" / step).glob("*.json"))

    def save(self, kind: str, unit: str, array: np.ndarray) -> None:
        """Write an array of a unit."""
        import numpy

        with writing(self.path(kind, unit, "npy"), "wb") as file:
            numpy.save(file, array)

    def arrays(self, kind: str) -> Iterator[np.ndarray]:
        """The arrays of one kind, in the order of their units, mapped into memory rather than read."""
        import numpy

        for file in sorted((self.folder / kind).glob("*.npy")):
            yield numpy.load(file, mmap_mode="r")

    def clear(self) -> None:
        """Remove the working folder."""
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def writing(path: Path, mode: str = "w") -> Iterator[Any]:
    """A file that stands under its name only when the block ends without an error, and whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Several tasks may write the same unit when a killed one is started again elsewhere: each under a name of its own.
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open(mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def read_lines(path: Path) -> Iterator[Any]:
    """The values of a file of JSON Lines, one by one."""
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def share(units: list[Any], rank: int, tasks: int) -> list[Any]:
    """The units that task `rank` of `tasks` works on."""
    return units[rank::tasks]

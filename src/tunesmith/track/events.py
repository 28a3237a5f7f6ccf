"""The event log of a run: one JSON object a line, appended by the worker, read by everyone else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from pydantic import ValidationError

from ..files import disk_errors
from ..records import Event

FILENAME = "events.jsonl"


class EventLog:
    """Appends events to the log of a run folder; each line is flushed at once, so that a crash loses none."""

    def __init__(self, folder: Path, *, silent: bool = False) -> None:
        """`silent`: write nothing, as it is with processes beside the one that keeps the run's records."""
        self.path = folder / FILENAME
        self._file: IO[str] | None = None
        if silent:
            return
        with disk_errors(self.path):
            torn = self.path.exists() and not self.path.read_bytes().endswith(b"\n") and self.path.stat().st_size > 0
            self._file = self.path.open("a", encoding="utf-8")
            if torn:  # a killed process left half a line; the next event begins a line of its own
                self._file.write("\n")

    def write(self, kind: str, step: int = 0, **data: Any) -> Event:
        """Append one event and return it."""
        event = Event.model_validate({"time": time.time(), "kind": kind, "step": step, "data": data})
        if self._file:
            with disk_errors(self.path):
                self._file.write(event.model_dump_json() + "\n")
                self._file.flush()
        return event

    def close(self) -> None:
        """Close the file."""
        if self._file:
            self._file.close()


def read_events(folder: Path) -> list[Event]:
    """All whole events of a run; half a line, as a killed process leaves, is passed over."""
    path = folder / FILENAME
    return [event for line in path.read_bytes().splitlines() if (event := _parse(line))] if path.exists() else []


def follow_events(folder: Path, alive: Callable[[], bool], *, start: int = 0, pause: float = 0.1) -> Iterator[Event]:
    """Events from byte `start` on, as they are written, until `alive` says no and the log is read to its end."""
    path, position, rest = folder / FILENAME, start, b""
    while True:
        running = alive()
        if path.exists():
            with path.open("rb") as file:
                file.seek(position)
                chunk = file.read()
            position += len(chunk)
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                if event := _parse(line):
                    yield event
        if not running:
            return
        time.sleep(pause)


def curve(events: list[Event]) -> list[Event]:
    """The logged and evaluated steps in order; what a later resume did again replaces what it had done before."""
    steps: dict[tuple[int, str], Event] = {}
    for event in events:
        if event.kind == "start":
            steps = {key: old for key, old in steps.items() if key[0] <= event.step}
        elif event.kind in ("log", "eval"):
            steps[event.step, event.kind] = event
    return [steps[key] for key in sorted(steps)]


def _parse(line: bytes) -> Event | None:
    try:
        return Event.model_validate_json(line)
    except ValidationError:
        return None

"""What the processes of a run other than the main one leave when they fail: the main one alone writes the records."""

from __future__ import annotations

import json
from pathlib import Path

from ..errors import TunesmithError
from ..files import write_atomic

_FILES = "failed-{process}.json"


def tell_failure(folder: Path, process: int, error: TunesmithError) -> None:
    """Leave in a run folder why a process ended."""
    said = {"what": error.what, "why": error.why, "fix": error.fix, "exit_code": error.exit_code}
    write_atomic(folder / _FILES.format(process=process), json.dumps(said) + "\n")


def told_failure(folder: Path) -> TunesmithError | None:
    """What the process that failed first has left; None where none did."""
    files = sorted(folder.glob(_FILES.format(process="*")), key=lambda path: path.stat().st_mtime)
    if not files:
        return None
    said = json.loads(files[0].read_text(encoding="utf-8"))
    number = files[0].stem.rpartition("-")[2]
    error = TunesmithError(f"Process {number}: {said['what']}", why=said["why"], fix=said["fix"])
    error.exit_code = said["exit_code"]
    return error


def forget_failures(folder: Path) -> None:
    """Remove what an earlier attempt has left."""
    for path in folder.glob(_FILES.format(process="*")):
        path.unlink(missing_ok=True)

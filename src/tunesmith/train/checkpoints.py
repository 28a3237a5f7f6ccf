"""Which checkpoints count: one is complete once its marker is written, and the marker lists its files' sizes.

Transformers writes a checkpoint file by file, without an atomic rename; a process killed meanwhile leaves a folder that
looks like a checkpoint and crashes the resume. So nothing counts before its marker, which is written when all else is
on the disk. What a disk changes later, checksums tell; they are read when a run goes on from the checkpoint.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from pathlib import Path

from ..files import write_atomic

MARKER = "complete.json"
CHECKSUMS = "checksums.json"
FOLDER = "checkpoints"
_NO_PART = (MARKER, CHECKSUMS, "README.md")
_CHUNK = 1 << 20


def mark_complete(checkpoint: Path) -> None:
    """Write the checksums and the marker; call it when the library has written everything."""
    checksums = {str(file.relative_to(checkpoint)): _checksum(file, flush=True) for file in _files(checkpoint)}
    write_atomic(checkpoint / CHECKSUMS, json.dumps(checksums, indent=2, sort_keys=True) + "\n")
    sizes = {str(file.relative_to(checkpoint)): file.stat().st_size for file in _files(checkpoint)}
    write_atomic(checkpoint / MARKER, json.dumps(sizes, indent=2, sort_keys=True) + "\n")


def is_complete(checkpoint: Path) -> bool:
    """Whether the marker is there and every file it lists has its size."""
    try:
        sizes = json.loads((checkpoint / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if not isinstance(sizes, dict) or not sizes:
        return False
    parts = [(checkpoint / name, size) for name, size in sizes.items() if name not in _NO_PART]
    return all(path.is_file() and path.stat().st_size == size for path, size in parts)


def is_intact(checkpoint: Path) -> bool:
    """Whether a checkpoint is complete and its files are as they were written; reads all of them."""
    if not is_complete(checkpoint):
        return False
    if not (checkpoint / CHECKSUMS).exists():
        return True  # as earlier versions left them
    try:
        checksums = json.loads((checkpoint / CHECKSUMS).read_text(encoding="utf-8"))
        return all(_checksum(checkpoint / name) == checksum for name, checksum in checksums.items())
    except (OSError, ValueError, AttributeError):
        return False


def step_of(checkpoint: Path) -> int:
    """The step after which a checkpoint was written."""
    return int(checkpoint.name.rpartition("-")[2])


def all_checkpoints(run: Path) -> list[Path]:
    """Every checkpoint folder of a run, complete or not, oldest first."""
    found = [path for path in (run / FOLDER).glob("checkpoint-*") if path.is_dir()]
    return sorted((path for path in found if path.name.rpartition("-")[2].isdecimal()), key=step_of)


def last_complete(run: Path) -> Path | None:
    """The newest checkpoint of a run that is complete and intact."""
    return next((path for path in reversed(all_checkpoints(run)) if is_intact(path)), None)


def remove_torn(run: Path, last: Path | None) -> list[str]:
    """Delete checkpoints that nobody can resume from, and return their names.

    Those are the ones that aren't complete, and the damaged ones: all that are newer than `last`, the last one that
    counts.
    """
    after = step_of(last) if last else -1
    torn = [path for path in all_checkpoints(run) if step_of(path) > after or not is_complete(path)]
    for path in torn:
        shutil.rmtree(path)
    return [path.name for path in torn]


def prune(run: Path, keep: int | None, *, best: Path | None = None) -> None:
    """Delete complete checkpoints but the newest `keep` of them and the `best`; None keeps all.

    The trainer's own limit isn't used: it deletes before the new checkpoint is known to be whole.
    """
    complete = [path for path in all_checkpoints(run) if is_complete(path)]
    for path in complete[: -keep if keep else 0]:
        if best is None or path.name != best.name:
            # The marker goes first: a folder that is half deleted must not count.
            (path / MARKER).unlink()
            shutil.rmtree(path)


def _files(checkpoint: Path) -> list[Path]:
    return sorted(path for path in checkpoint.rglob("*") if path.is_file() and path.name not in _NO_PART)


def _checksum(path: Path, *, flush: bool = False) -> int:
    """CRC-32 of a file; `flush`: see that what was written is on the disk first."""
    checksum = 0
    with path.open("rb") as file:
        if flush:
            os.fsync(file.fileno())
        while chunk := file.read(_CHUNK):
            checksum = zlib.crc32(chunk, checksum)
    return checksum

"""What an unexpected error of a library means: no space, no memory, the user's own code, or something unknown."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from pathlib import Path

from ..errors import EnvironmentLacksError, TunesmithError, UsageError


def explained(error: Exception, folder: Path, own: Sequence[Path] = ()) -> TunesmithError:
    """What to tell of an error that ended training in the run `folder`; `own` are the user's files of code."""
    return (
        _disk_full(error, folder)
        or _out_of_memory(error)
        or _own_code(error, own)
        or TunesmithError(
            f"Training failed: {_line(error)}",
            why="An unexpected error in the worker or in a library.",
            fix=f"The traceback is in {folder / 'worker.log'}; `tunesmith resume {folder}` goes on from "
            "the last checkpoint.",
        )
    )


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


def resumable(error: TunesmithError, folder: Path) -> TunesmithError:
    """The same error; a full disk's tells how the run goes on rather than how a command is given again."""
    return (_disk_full(error.__cause__, folder) if isinstance(error.__cause__, OSError) else None) or error


def _disk_full(error: Exception, folder: Path) -> TunesmithError | None:
    text = str(error)
    if not any(sign in text for sign in ("No space left", "File too large", "inline_container", "Disk quota")):
        return None
    return EnvironmentLacksError(
        "The disk is full while saving.",
        why="A checkpoint or the model couldn't be written whole; it doesn't count, earlier ones are untouched.",
        fix=f"Free space, then continue from the last complete checkpoint with `tunesmith resume {folder}`.",
    )


def _out_of_memory(error: Exception) -> TunesmithError | None:
    if not isinstance(error, MemoryError) and "out of memory" not in str(error).lower():
        return None
    return EnvironmentLacksError(
        "The device ran out of memory.",
        why=str(error).splitlines()[0] if str(error) else "The operating system refused more memory.",
        fix="Set a smaller per_device_train_batch_size or max_length under `training:`, or gradient_checkpointing.",
    )


def _own_code(error: Exception, own: Sequence[Path]) -> TunesmithError | None:
    """The user's own file where the error comes out of it, with its line."""
    files = {str(path) for path in own}
    places = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in files]
    if not places:
        return None
    place = places[-1]
    return UsageError(
        f"{place.filename} raised {_line(error)}",
        why=f"Line {place.lineno}, in {place.name}: the recipe names this file, and the run calls it.",
        fix="Repair it, then continue from the last checkpoint with `tunesmith resume RUN --anyway`.",
    )

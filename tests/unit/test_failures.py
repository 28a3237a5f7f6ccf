"""What is told of an error that ended a run."""

from __future__ import annotations

import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tunesmith.errors import EnvironmentLacksError, TunesmithError, UsageError
from tunesmith.files import disk_errors
from tunesmith.train.failures import resumable
from tunesmith.train.worker import guarded


def test_a_full_disk_is_told_with_the_command_that_goes_on(tmp_path: Path) -> None:
    """Wherever the run wrote: its record, its events, or a checkpoint."""
    told: list[TunesmithError] = []
    worker: Any = SimpleNamespace(folder=tmp_path, fail=told.append)

    def writes() -> int:
        with disk_errors(tmp_path / "run.json"):
            raise OSError(errno.ENOSPC, "No space left on device")

    assert guarded(worker, writes) == EnvironmentLacksError.exit_code
    assert f"tunesmith resume {tmp_path}" in told[0].fix


def test_other_errors_are_told_as_they_are(tmp_path: Path) -> None:
    plain = UsageError("No.", why="It is so.", fix="None.")
    assert resumable(plain, tmp_path) is plain
    with pytest.raises(EnvironmentLacksError) as refused, disk_errors(tmp_path / "run.json"):
        raise PermissionError(errno.EACCES, "Permission denied")
    assert resumable(cast("TunesmithError", refused.value), tmp_path) is refused.value

"""One hierarchy of errors: what happened, why, what to do, and the exit code."""

from __future__ import annotations


class TunesmithError(Exception):
    """An error the user can act on; printed as three lines, never as a traceback.

    Args:
        what: What happened, one line.
        why: Why it happened or why it matters, one line.
        fix: What to do now, one line.
    """

    exit_code = 1

    def __init__(self, what: str, *, why: str, fix: str) -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.fix = fix


class UsageError(TunesmithError):
    """The command, the recipe or a path given by the user is wrong (exit code 2)."""

    exit_code = 2


class EnvironmentLacksError(TunesmithError):
    """The machine lacks something: a package, disk space, a permission, a token (exit code 3)."""

    exit_code = 3


class StoppedError(TunesmithError):
    """The user stopped long work; what was done is saved (exit code 130, as shells use for Ctrl-C)."""

    exit_code = 130

"""How stages tell of their progress, without knowing who listens."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called by long work: `done` of `total` units (None: unknown) of the work that `label` names."""

    def __call__(self, label: str, done: int, total: int | None) -> None:
        """Tell of progress."""
        ...


def silent(label: str, done: int, total: int | None) -> None:
    """A Progress that tells nobody."""

"""Rows that all processes of a run read from one place, so that what is made of them is made once."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final

from . import ranks

if TYPE_CHECKING:
    from datasets import Dataset

FOLDER: Final = "rows"
"""Of the run folder, while several processes train."""


def shared(dataset: Dataset, run: Path, name: str) -> Dataset:
    """The dataset itself for one process; for several, one in a file that the main process has written.

    TRL lets the main process prepare the rows first; the others find the result in the dataset's folder, and the
    log-probabilities of a reference model they find nowhere else (TRL 1.16: DPOTrainer raises FileNotFoundError).
    All processes have to call it.
    """
    if ranks.count() == 1:
        return dataset
    import datasets

    place = run / FOLDER / name
    if ranks.is_main():
        shutil.rmtree(place, ignore_errors=True)
        dataset.save_to_disk(place)
    ranks.wait()
    return datasets.load_from_disk(str(place))


def forget(run: Path) -> None:
    """Remove what the processes shared."""
    shutil.rmtree(run / FOLDER, ignore_errors=True)

"""The stages of a preparation as steps of a datatrove pipeline: the same functions, each task with its share.

The stages exchange files under the dataset's folder, which all tasks must see; no documents flow between steps.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from datatrove.data import DocumentsPipeline
from datatrove.pipeline.base import PipelineStep

from ...records.preparation import PreparationSettings
from . import near
from .bad import refuse_bad_rows
from .convert import convert
from .dedup import exact
from .finish import finish
from .job import Job
from .run import look, take
from .write import write

__all__ = ["WORK", "Stage", "begin"]


def begin(settings: PreparationSettings, output: Path) -> Job:
    """Look at the source, and take the output folder or continue there.

    Raises:
        UsageError, FindingsError, EnvironmentLacksError: as prepare_dataset; the dataset may be finished already.
    """
    job = look(settings, output)
    take(job)
    return job


class Stage(PipelineStep):
    """One stage of a preparation, by the name it has in WORK."""

    type = "TUNESMITH"

    def __init__(self, job: Job, name: str) -> None:
        self.name = name  # which the counts of tasks are kept by
        super().__init__()
        self.job = job

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        """Do the share of task `rank` of `world_size`; what another task, now or earlier, has done is passed over."""
        with self.track_time(unit="task"):
            WORK[self.name](self.job, rank, world_size)
        yield from data or ()


WORK: Final[dict[str, Callable[..., Any]]] = {
    "convert": convert,  # read, filter, map; each task takes chunks of rows
    "check": refuse_bad_rows,  # refuse rows that can't be used, unless they are to be dropped; one task
    "exact": exact,  # find equal rows; each task takes buckets of digests
    "common": near.common,  # find the text that many rows share, which counts for nothing; one task
    "sign": near.sign,  # sign the rows; each task takes chunks
    "meet": near.meet,  # pair the rows that agree in a band; each task takes bands
    "compare": near.compare,  # compare the pairs; each task takes buckets of them
    "union": near.union,  # join pairs into clusters; one task
    "write": write,  # write the parts of the splits; each task takes chunks
    "finish": finish,  # put the parts together, with manifest and card; one task
}

"""The stages of a preparation as steps of a datatrove pipeline: the same functions, each task with its share.

The stages exchange files under the dataset's folder, which all tasks must see; no documents flow between steps.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

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

__all__ = [
    "Check",
    "Common",
    "Compare",
    "Convert",
    "Exact",
    "Finish",
    "Meet",
    "Sign",
    "Union",
    "Write",
    "begin",
]


def begin(settings: PreparationSettings, output: Path) -> Job:
    """Look at the source, and take the output folder or continue there.

    Raises:
        UsageError, FindingsError, EnvironmentLacksError: as prepare_dataset; the dataset may be finished already.
    """
    job = look(settings, output)
    take(job)
    return job


class Stage(PipelineStep):
    """One stage of a preparation."""

    type = "TUNESMITH"
    work: ClassVar[Callable[..., Any]]

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.job = job

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        """Do the share of task `rank` of `world_size`; what another task, now or earlier, has done is passed over."""
        with self.track_time(unit="task"):
            type(self).work(self.job, rank, world_size)
        yield from data or ()


class Convert(Stage):
    """Read, filter, map; each task converts its chunks."""

    name = "convert"
    work = staticmethod(convert)


class Check(Stage):
    """Refuse rows that can't be used, unless they are to be dropped; one task."""

    name = "check"
    work = staticmethod(refuse_bad_rows)


class Exact(Stage):
    """Find equal rows; each task takes its buckets of digests."""

    name = "exact duplicates"
    work = staticmethod(exact)


class Common(Stage):
    """Find the text that many rows share, which counts for nothing; one task."""

    name = "near duplicates: common text"
    work = staticmethod(near.common)


class Sign(Stage):
    """Sign the rows; each task takes its chunks."""

    name = "near duplicates: signatures"
    work = staticmethod(near.sign)


class Meet(Stage):
    """Pair the rows that agree in a band; each task takes its bands."""

    name = "near duplicates: bands"
    work = staticmethod(near.meet)


class Compare(Stage):
    """Compare the pairs; each task takes its buckets of them."""

    name = "near duplicates: similarities"
    work = staticmethod(near.compare)


class Union(Stage):
    """Join pairs into clusters; one task."""

    name = "near duplicates: clusters"
    work = staticmethod(near.union)


class Write(Stage):
    """Write the parts of the splits; each task takes its chunks."""

    name = "write"
    work = staticmethod(write)


class Finish(Stage):
    """Put the parts together, with manifest and card; one task."""

    name = "finish"
    work = staticmethod(finish)

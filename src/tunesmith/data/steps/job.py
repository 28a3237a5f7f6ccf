"""A preparation as every task of it knows it: settings, sources, layout, and where its files go."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ...recipe.schema import Mapping, Source
from ...records import PreparationSettings, SourceFile
from ..convert import reader
from ..formats import Detection, detect
from ..sources import Opened, open_source
from .transform import Transform
from .work import Work


@dataclass(frozen=True)
class Job:
    """One preparation.

    Attributes:
        settings: What was asked for.
        output: The dataset's folder.
    """

    settings: PreparationSettings
    output: Path

    @property
    def work(self) -> Work:
        """The working folder."""
        return Work(self.output)

    @cached_property
    def source(self) -> Opened:
        """The source, to be streamed.

        Raises:
            UsageError, FindingsError, EnvironmentLacksError: as open_source.
        """
        spec: list[Any] = [one if isinstance(one, str) else Source(**one) for one in self.settings.data]
        return open_source(spec if len(spec) > 1 else spec[0], seed=self.settings.seed)

    @cached_property
    def sources(self) -> list[SourceFile]:
        """The source's files with their fingerprints."""
        return self.source.files

    @cached_property
    def detection(self) -> Detection:
        """What the rows are.

        Raises:
            UsageError: the mapping names what isn't there.
        """
        return detect(self.source.structure(), Mapping(**self.settings.mapping), filtered=self.settings.filter)

    def transform(self) -> Transform:
        """What happens to each row on its own."""
        asked = self.settings
        read = reader(self.detection, conversational=False, method=asked.method)
        return Transform(read, asked.filter, asked.group, asked.seed, asked.eval, asked.test, self.source.unit)

    def __getstate__(self) -> dict[str, Any]:
        """What another process gets; it looks at the source itself."""
        return {"settings": self.settings, "output": self.output}

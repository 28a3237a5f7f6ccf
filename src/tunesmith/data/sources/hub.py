"""Datasets on the Hub: which of their files make up a split, found as `datasets` finds them, and fetched."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NoReturn

from ...errors import EnvironmentLacksError, UsageError
from ...recipe.schema import Source
from ..rows import Row
from .found import File

_URL: Final = re.compile(r"hf://datasets/(?P<id>[^/]+/[^/@]+)@(?P<commit>[^/]+)/(?P<path>.+)")


def find_on_hub(source: Source) -> list[File]:
    """Fetch the files of a dataset's split, into the Hub client's own cache.

    Raises:
        UsageError: no such dataset, configuration, split or revision, or it may not be read with this token.
        EnvironmentLacksError: the Hub can't be reached.
    """
    from huggingface_hub import hf_hub_download

    name = _id(source)
    builder = _builder(source)
    files = builder.config.data_files or {}
    split = _split(source, list(map(str, files)))
    found = []
    for url in files[split]:
        match = _URL.fullmatch(str(url))
        if match is None:
            _no_files(name)
        with _hub_errors(source):
            path = hf_hub_download(match["id"], match["path"], repo_type="dataset", revision=match["commit"])
        found.append(File(Path(path), match["path"], str(url)))
    return found


def first_rows(source: Source, most: int) -> tuple[str, list[Row]]:
    """The first rows of a dataset's split, streamed without fetching whole files, and the dataset's URL.

    Raises:
        As find_on_hub.
    """
    import itertools

    builder = _builder(source)
    split = _split(source, list(map(str, builder.config.data_files or {})))
    with _hub_errors(source):
        rows = [dict(row) for row in itertools.islice(builder.as_streaming_dataset(split=split), most)]
    return f"hf://datasets/{_id(source)}@{builder.hash}", rows


def _id(source: Source) -> str:
    return source.path.removeprefix("hf://").removeprefix("datasets/").strip("/")


def _builder(source: Source) -> Any:
    import datasets

    with _hub_errors(source), _quiet(datasets):
        return datasets.load_dataset_builder(
            f"hf://datasets/{_id(source)}", name=source.config, revision=source.revision
        )


@contextlib.contextmanager
def _quiet(datasets: Any) -> Iterator[None]:
    """Without progress bars of the library's own; they would mix with ours."""
    shown = datasets.utils.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


def _split(source: Source, splits: list[str]) -> str:
    wanted = source.split or ("train" if "train" in splits or len(splits) != 1 else splits[0])
    if wanted not in splits:
        raise UsageError(
            f"{_id(source)} has no split {wanted}.",
            why=f"It has {', '.join(splits) or 'none'}.",
            fix=f"Name one: `data: {{train: {{path: {_id(source)}, split: {(splits or ['NAME'])[0]}}}}}`.",
        )
    return wanted


def _no_files(name: str) -> NoReturn:
    raise UsageError(
        f"{name} has no data files that can be read.",
        why="JSON, JSONL, CSV, Parquet and text files are; scripts and other formats aren't.",
        fix="Download it by its own instructions, and give the files.",
    )


@contextlib.contextmanager
def _hub_errors(source: Source) -> Iterator[None]:
    """Turn what the Hub's clients raise about a dataset into an actionable error."""
    import datasets
    from huggingface_hub import errors

    name = _id(source)
    try:
        yield
    except (datasets.exceptions.DataFilesNotFoundError, datasets.exceptions.DatasetGenerationError):
        _no_files(name)
    except (
        FileNotFoundError,
        errors.RepositoryNotFoundError,
        errors.HFValidationError,
        errors.GatedRepoError,
    ) as error:
        _refused(source, error)
    except errors.RevisionNotFoundError:
        _no_revision(source)
    except (errors.HTTPError, errors.HfHubHTTPError, ConnectionError, OSError) as error:
        raise EnvironmentLacksError(
            f"{name} can't be fetched.",
            why=f"No file or folder here has this name, and the Hub can't be reached: {str(error).splitlines()[0]}",
            fix="Check the network, or give a local file.",
        ) from error
    except (ValueError, RuntimeError) as error:
        _misnamed(source, error)


def _refused(source: Source, error: Exception) -> NoReturn:
    name, said = _id(source), f"{error} {error.__cause__ or ''}"
    if "revision" in said.lower() and source.revision:
        _no_revision(source)
    if "gated" in said.lower():
        raise UsageError(
            f"{name} is gated.",
            why="Its owner wants you to accept terms first, and your token has no access yet.",
            fix=f"Accept the terms on the Hub's page of {name}, then log in with `hf auth login`.",
        ) from None
    raise UsageError(
        f"There is no dataset {name}.",
        why="No file or folder here has this name, and the Hub has no such dataset (or it is private and you aren't "
        "logged in).",
        fix="Check the spelling; for a private dataset log in with `hf auth login`.",
    ) from None


def _no_revision(source: Source) -> NoReturn:
    raise UsageError(
        f"{_id(source)} has no revision {source.revision}.",
        why="The Hub knows the dataset but not this branch, tag or commit.",
        fix="Leave `revision` out, or give one that stands on the dataset's page.",
    ) from None


def _misnamed(source: Source, error: Exception) -> NoReturn:
    said = re.search(r"\[[^]]*\]", str(error))
    known = said[0].strip("[]").replace("'", "") if said else ""
    if "config" not in str(error).lower():
        raise UsageError(
            f"{_id(source)} can't be read: {str(error).splitlines()[0]}",
            why="The `datasets` library refuses it.",
            fix="Download it by its own instructions, and give the files.",
        ) from None
    missing = f"has no configuration {source.config}" if source.config else "has several configurations"
    raise UsageError(
        f"{_id(source)} {missing}.",
        why=f"It has {known}.",
        fix=f"Name one in the recipe: `data: {{train: {{path: {_id(source)}, config: {known.split(',')[0]}}}}}`.",
    ) from None

"""From what the recipe names to files: a path, a glob, a folder, a dataset on the Hub, or several of these."""

from __future__ import annotations

import contextlib
import glob
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ...errors import UsageError
from ...recipe.schema import Source, is_dataset_id
from ...records import Preparation

Spec = str | Path | Source | Sequence[str | Source]

_GLOB: Final = re.compile(r"[*?\[]")
_ABOUT: Final = re.compile(
    r"(?:readme|licen[cs]e|changelog|citation|notice)(?:\.\w+)?|dataset_infos?\.json", re.IGNORECASE
)
_SPLITS: Final = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "eval", "evaluation"), "eval"),
}
_SPLIT: Final = re.compile(rf"(?:^|[/._-])({'|'.join(_SPLITS)})(?=[/._-]|$)", re.IGNORECASE)


@dataclass(frozen=True)
class File:
    """A file to read rows from.

    Attributes:
        path: Where it lies.
        name: As findings name it.
        title: As records name it: as it was given, or hf://datasets/ID@COMMIT/PATH.
        document: A text in it is one row; it stands among others in a folder.
    """

    path: Path
    name: str
    title: str
    document: bool = False


def as_sources(spec: Spec) -> list[Source]:
    """The sources that a recipe's `data.train`, or a path, names."""
    if isinstance(spec, Source):
        return [spec]
    if isinstance(spec, (str, Path)):
        return [Source(path=str(spec))]
    return [item if isinstance(item, Source) else Source(path=str(item)) for item in spec]


def is_hub(source: Source) -> bool:
    """Whether the source is a dataset on the Hub: nothing here has the name, and it says so or looks like an id."""
    if os.path.lexists(Path(source.path).expanduser()):
        return False
    return bool(source.config or source.revision) or is_dataset_id(source.path)


def find_files(source: Source) -> list[File]:
    """The local files of a source, in the order of their names.

    Raises:
        UsageError: nothing is there, a folder holds no files, or a glob matches none.
    """
    path = Path(source.path).expanduser()
    if path.is_dir():
        return _in_folder(path, source.split)
    if not os.path.lexists(path) and _GLOB.search(source.path):
        return _globbed(str(path))
    if not path.exists():
        raise UsageError(
            f"{path} isn't there." if not path.is_symlink() else f"{path} is a link to nothing, or to itself.",
            why="A path in a recipe counts from the recipe's folder, any other from the folder the command runs in.",
            fix="Check its spelling, or give the whole path; a dataset on the Hub is named OWNER/NAME.",
        )
    return [File(path, path.name, source.path)]


def other_splits(source: Source) -> list[str]:
    """Files of a folder that are left alone because they belong to other splits than the source's."""
    folder = Path(source.path).expanduser()
    if is_hub(source) or not folder.is_dir():
        return []
    read = {file.path for file in find_files(source)}
    return [path.relative_to(folder).as_posix() for path in _data_files(folder) if path not in read]


def _in_folder(folder: Path, split: str | None) -> list[File]:
    wanted, files = split or "train", _data_files(folder)
    by_split = {path: _split_of(path.relative_to(folder).as_posix()) for path in files}
    if split or ("train" in by_split.values() and len(set(by_split.values())) > 1):
        files = [path for path in files if by_split[path] == _SPLITS.get(wanted, wanted)]
    if not files:
        raise UsageError(
            f"{folder} is a folder without files" + (f" of the split {split}." if split else "."),
            why="All files in it are read, also in folders below; hidden ones, and those that only describe, aren't.",
            fix="Name the file itself, or the right folder.",
        )
    several = len(files) > 1
    return [
        File(path, path.relative_to(folder).as_posix() if several else path.name, str(path), several) for path in files
    ]


def _data_files(folder: Path) -> list[Path]:
    """The files of a folder that may hold rows; of a dataset that `prepare` made, those of its splits."""
    if (folder / Preparation.filename).exists():
        with contextlib.suppress(UsageError):
            return [folder / file.name for file in Preparation.load(folder).files.values()]
    found: list[Path] = []
    # followlinks stays off: a link to a folder above would never end. Links to files are read.
    for here, below, names in os.walk(folder):
        below[:] = sorted(name for name in below if not name.startswith("."))
        found += [Path(here) / name for name in names if not name.startswith(".") and not _ABOUT.fullmatch(name)]
    return sorted(path for path in found if path.is_file())


def _split_of(name: str) -> str | None:
    """The split that a file's path names, as `datasets` understands it: data/train-00000.parquet, test/a.jsonl."""
    found = _SPLIT.search(name)
    return _SPLITS[found[1].lower()] if found else None


def _globbed(pattern: str) -> list[File]:
    found = sorted(Path(name) for name in glob.glob(pattern, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
    files = [path for path in found if path.is_file()]
    if not files:
        raise UsageError(
            f"{pattern} matches no file.",
            why="It is read as a glob (*, ?, [..], ** for folders below), in a recipe from the recipe's folder on.",
            fix="Check the pattern; quote it, so that the shell doesn't expand it.",
        )
    several = len(files) > 1
    return [File(path, str(path) if several else path.name, str(path), several) for path in files]

"""A prepared dataset to the Hub: private, without what was rejected, searched for secrets first, and read back."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ...errors import EnvironmentLacksError, TunesmithError, UsageError
from ...records.preparation import Preparation
from ...rules import FindingsError, finding
from ...words import counted
from ..quality.private import secrets
from ..sources import open_source
from .finish import CARD


def refuse_secrets(folder: Path, record: Preparation) -> None:
    """Search every row that would be published.

    Raises:
        FindingsError: D044, rows hold what looks like a vendor's key or token.
    """
    kinds: Counter[str] = Counter()
    rows = 0
    first: tuple[str, object] | None = None
    for file in record.files.values():
        for place, row, *_ in open_source(str(folder / file.name)).rows():
            found = {secret.kind for secret in secrets(json.dumps(row, ensure_ascii=False, default=str))}
            kinds.update(found)
            rows += bool(found)
            first = first or ((file.name, place) if found else None)
    if first:
        named = ", ".join(sorted(kinds))
        raise FindingsError(
            [finding("D044", record.files["train"].name, count=f"{rows:,}", kinds=named, file=first[0], row=first[1])]
        )


def push(folder: Path, record: Preparation, name: str) -> str:
    """Upload files, card and record to the private dataset `name`; gives its commit's address.

    The rejected rows stay here. A dataset that is there already gets a new commit, unless it is public.

    Raises:
        UsageError: the name is no dataset's, the token may not write there, or the dataset is public.
        EnvironmentLacksError: the Hub can't be reached.
        TunesmithError: what the Hub has isn't what was sent.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    sent = {
        path.name: path.stat().st_size
        for path in [
            folder / CARD,
            folder / Preparation.filename,
            *(folder / file.name for file in record.files.values()),
        ]
    }
    with _hub_errors(name):
        api.create_repo(name, repo_type="dataset", private=True, exist_ok=True)
        if not api.dataset_info(name).private:
            raise UsageError(
                f"The dataset {name} is public.",
                why="Rows are pushed to private datasets only; who may see them is for you to decide.",
                fix="Choose another name, or make it private on its settings page.",
            )
        commit = api.upload_folder(
            repo_id=name,
            repo_type="dataset",
            folder_path=folder,
            allow_patterns=list(sent),
            commit_message=f"tunesmith prepare: {counted(sum(file.rows for file in record.files.values()), 'row')}",
        )
        there = api.dataset_info(name, revision=commit.oid, files_metadata=True).siblings or []
    sizes = {file.rfilename: file.size for file in there}
    wrong = sorted(file for file, size in sent.items() if sizes.get(file) != size)
    if wrong:
        raise TunesmithError(
            f"The Hub's copy of {', '.join(wrong)} isn't what was sent.",
            why="After the upload, the Hub's list of files was read back and compared by size.",
            fix="Run the same command again; it uploads what is missing.",
        )
    return f"{commit.repo_url}/tree/{commit.oid}"


@contextlib.contextmanager
def _hub_errors(name: str) -> Iterator[None]:
    from huggingface_hub import errors

    try:
        yield
    except errors.HFValidationError:
        raise UsageError(
            f"{name} is no name of a dataset.",
            why="A dataset's name is OWNER/NAME, of letters, digits, - _ and dots.",
            fix="Correct the name after --push.",
        ) from None
    except errors.HfHubHTTPError as error:
        if error.response is not None and error.response.status_code in (401, 403, 404):
            raise UsageError(
                f"The Hub doesn't let this token write to {name}.",
                why=str(error).splitlines()[0],
                fix="Log in with a token that may write: `hf auth login`, or HF_TOKEN.",
            ) from None
        raise _unreachable(name, error) from error
    except (errors.HTTPError, OSError) as error:
        raise _unreachable(name, error) from error


def _unreachable(name: str, error: Exception) -> EnvironmentLacksError:
    return EnvironmentLacksError(
        f"{name} can't be pushed.",
        why=f"The Hub can't be reached: {(str(error).splitlines() or [''])[0]}",
        fix="Check the network, then run the same command again: the dataset is made and kept.",
    )

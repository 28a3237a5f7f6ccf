"""Where a model lives: built in, in a folder, or on the Hub; only its small files are fetched here."""

from __future__ import annotations

import contextlib
import difflib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import EnvironmentLacksError, UsageError
from .families import KnownModel, find_known, near_names, write_config

BUILTIN = {"builtin:small": "demo/small"}
_SMALL_FILES = ["*.json", "*.jinja", "*.txt", "tokenizer.model"]
_PACKAGE = Path(__file__).resolve().parents[1]


class GatedModelError(UsageError):
    """The Hub has the model, and its owner's terms weren't accepted (exit code 2)."""


@dataclass(frozen=True)
class Source:
    """A model that was found.

    Attributes:
        name: As the user named it.
        location: What from_pretrained takes: a folder or a Hub id.
        folder: Local folder with the model's small files (config, tokenizer).
        revision: Commit on the Hub; None for local models.
        as_of: Date of the table of known models that stands in for the Hub; then the folder holds config.json alone.
    """

    name: str
    location: str
    folder: Path
    revision: str | None = None
    as_of: str = ""


def locate(name: str, revision: str | None = None, *, planning: bool = False) -> Source:
    """Find a model by name; for the Hub, fetch its small files and pin the commit.

    With `planning`, a known model is taken from the shipped table when the Hub can't be reached or doesn't give it.

    Raises:
        UsageError: there is no such model, or it may not be read with this token.
        EnvironmentLacksError: the Hub can't be reached.
    """
    if name.startswith("builtin:"):
        return _builtin(name)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _local(name, folder.resolve())
    if folder.exists() or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UsageError(
            f"There is no model in {name}.",
            why="It is a file, or a folder that doesn't exist.",
            fix="Give a folder with config.json and *.safetensors, a Hub id such as Qwen/Qwen3-0.6B, or builtin:small.",
        )
    known = find_known(name) if planning else None
    if known is not None and _out_of_reach(name):
        return _listed(name, known)
    try:
        return _hub(name, revision)
    except (EnvironmentLacksError, GatedModelError) as error:
        if known is not None:
            return _listed(name, known)
        if planning and (near := near_names(name)):
            raise type(error)(
                error.what, why=error.why, fix=f"{error.fix} The offline table has {', '.join(near)}."
            ) from None
        raise


def _listed(name: str, known: KnownModel) -> Source:
    return Source(name, known.name, write_config(known), as_of=known.as_of)


def _out_of_reach(name: str) -> bool:
    """Whether offline mode is on and nothing of a model is cached: seen without the Hub's client, slow to import."""
    from huggingface_hub import constants

    cached = Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}"
    return constants.is_offline_mode() and not cached.exists()


def _builtin(name: str) -> Source:
    if name not in BUILTIN:
        near = difflib.get_close_matches(name, BUILTIN, n=1, cutoff=0.0)[0]
        raise UsageError(
            f"There is no built-in model {name}.",
            why=f"Built in is {', '.join(BUILTIN)}.",
            fix=f"Did you mean {near}?",
        )
    folder = _PACKAGE / BUILTIN[name]
    return Source(name, str(folder), folder)


def _local(name: str, folder: Path) -> Source:
    if (folder / "adapter_config.json").exists() and not (folder / "config.json").exists():
        raise UsageError(
            f"{name} is an adapter, not a model.",
            why="An adapter alone has no weights to train on; its base must be merged with it first.",
            fix="Use the merged model (`tunesmith export RUN` writes RUN/export/merged), or the base model.",
        )
    if not (folder / "config.json").exists():
        raise UsageError(
            f"{name} has no config.json.",
            why="Without it nobody knows the model's architecture.",
            fix="Give the folder that save_pretrained wrote.",
        )
    return Source(name, str(folder), folder)


def _hub(name: str, revision: str | None) -> Source:
    from huggingface_hub import errors, snapshot_download

    try:
        with hub_errors(name):
            folder = Path(snapshot_download(name, revision=revision, allow_patterns=_SMALL_FILES))
    except errors.RevisionNotFoundError:
        raise UsageError(
            f"{name} has no revision {revision}.",
            why="The Hub knows the model but not this branch, tag or commit.",
            fix="Leave `revision:` out, or give one that stands on the model's page.",
        ) from None
    if not (folder / "config.json").exists():
        raise UsageError(
            f"{name} has no config.json.",
            why="It isn't a Transformers model (a GGUF or adapter repository, perhaps).",
            fix="Give the original model; its card usually names it as base_model.",
        )
    return Source(name, name, folder, revision=folder.name)


@contextlib.contextmanager
def hub_errors(name: str) -> Iterator[None]:
    """Turn what the Hub's client raises about model `name` into an actionable error.

    Raises:
        UsageError: there is no such model, or it may not be read with this token.
        EnvironmentLacksError: the Hub can't be reached.
    """
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError:
        raise GatedModelError(
            f"{name} is gated.",
            why="Its owner wants you to accept terms first, and your token has no access yet.",
            fix=f"Accept the terms on the Hub's page of {name}, then log in with `hf auth login`.",
        ) from None
    except (errors.RepositoryNotFoundError, errors.HFValidationError):
        raise UsageError(
            f"There is no model {name}.",
            why="It is no folder here, and the Hub has no such model (or it is private and you aren't logged in).",
            fix="Check the spelling; for a private model log in with `hf auth login`.",
        ) from None
    except errors.RevisionNotFoundError:
        raise
    except (errors.HTTPError, OSError) as error:  # the client's own errors, and those of its HTTP library
        raise EnvironmentLacksError(
            f"{name} can't be fetched.",
            why=f"It is no folder here, and the Hub can't be reached: {why_unreachable(error)}.",
            fix="Check the network, or give a local folder; `builtin:small` needs neither.",
        ) from error


def why_unreachable(error: BaseException) -> str:
    """Why the Hub can't be reached, in a few words, from what its client raised."""
    from huggingface_hub import errors, is_offline_mode

    if is_offline_mode():
        return "offline mode is on: HF_HUB_OFFLINE"
    if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__  # its own words are about the cache
    said = (str(error).splitlines() or [""])[0].partition(" for url")[0].rstrip(".")
    return said or type(error).__name__


def read_json(path: Path) -> dict[str, Any]:
    """One of a model's small JSON files.

    Raises:
        UsageError: it can't be read, or isn't a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} can't be read.", why=str(error), fix="Download or save the model again.") from None
    if not isinstance(value, dict):
        raise UsageError(f"{path} isn't a JSON object.", why="The file is damaged.", fix="Save the model again.")
    return value

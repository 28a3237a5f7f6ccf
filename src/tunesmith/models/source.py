"""Where a model lives: built in, in a folder, or on the Hub; only its small files are fetched here."""

from __future__ import annotations

import contextlib
import difflib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ..errors import EnvironmentLacksError, UsageError
from ..files import sha256
from ..records import EarlierAdapter, Plan, RunRecord
from .families import KnownModel, find_known, near_names, write_config

BUILTIN = {"builtin:small": "demo/small"}
ADAPTER_FILE = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
_RESULT = "model"
_WIDENED = ("embed_tokens.weight", "lm_head.weight", "base_layer.weight")
_TOLD = ("r", "lora_alpha", "target_modules", "use_dora", "use_rslora", "num_virtual_tokens", "trainable_token_indices")
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
        earlier: Adapters of earlier runs that belong on top of it, oldest first.
        embeddings: Rows that these runs widened its embedding to; 0 if they didn't.
        tokenizer: Folder of the tokenizer, where it isn't `folder`.
    """

    name: str
    location: str
    folder: Path
    revision: str | None = None
    as_of: str = ""
    earlier: tuple[EarlierAdapter, ...] = ()
    embeddings: int = 0
    tokenizer: Path | None = None

    @property
    def tokenizer_folder(self) -> Path:
        """Where the tokenizer and its chat template are."""
        return self.tokenizer or self.folder


def locate(name: str, revision: str | None = None, *, planning: bool = False) -> Source:
    """Find a model by name; for the Hub, fetch its small files and pin the commit.

    The model of a run folder is the run's result: a whole model, or an adapter on the base that it was trained on.
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
    if (folder / RunRecord.filename).exists():
        folder = _result(name, folder)
    if (folder / ADAPTER_FILE).exists() and not (folder / "config.json").exists():
        return _on_base(name, folder)
    if not (folder / "config.json").exists():
        raise UsageError(
            f"{name} has no config.json.",
            why="Without it nobody knows the model's architecture.",
            fix="Give the folder that save_pretrained wrote.",
        )
    return Source(name, str(folder), folder)


def _result(name: str, run: Path) -> Path:
    """The trained model of a run folder.

    Raises:
        UsageError: it has none.
    """
    record = RunRecord.load(run)
    if record.result is None or not (run / record.result).is_dir():
        raise UsageError(
            f"Run {name} has no trained model.",
            why=f"Its status is {record.status}: there is nothing to go on from.",
            fix=f"Finish it first: `tunesmith resume {name}`.",
        )
    return run / record.result


def _on_base(name: str, adapter: Path) -> Source:
    """The base of an adapter, with all the adapters that belong on it."""
    base = _base_of(name, adapter)
    own_tokenizer = adapter if (adapter / "tokenizer_config.json").exists() else base.tokenizer
    return replace(base, name=name, earlier=(*base.earlier, read_adapter(adapter)), tokenizer=own_tokenizer)


def _base_of(name: str, adapter: Path) -> Source:
    """What an adapter was trained on: by the plan of its run, else by PEFT's own record."""
    if adapter.name == _RESULT and (adapter.parent / Plan.filename).exists():
        facts = Plan.load(adapter.parent).model
        base = locate(facts.location, facts.revision)
        kept = facts.earlier[:-1] if facts.continues else facts.earlier
        return replace(base, earlier=tuple(kept), embeddings=facts.embeddings)
    settings = read_json(adapter / ADAPTER_FILE)
    if not settings.get("base_model_name_or_path"):
        raise UsageError(
            f"{name} is an adapter that doesn't say of which model.",
            why="Its adapter_config.json has no base_model_name_or_path, and no plan lies beside it.",
            fix="Use the merged model (`tunesmith export RUN` writes RUN/export/merged), or enter the base there.",
        )
    return locate(str(settings["base_model_name_or_path"]), settings.get("revision"))


def read_adapter(folder: Path) -> EarlierAdapter:
    """What an adapter's small files say of it.

    Raises:
        UsageError: they can't be read.
    """
    settings, weights = read_json(folder / ADAPTER_FILE), folder / ADAPTER_WEIGHTS
    try:
        with safe_open(weights, "np") as file:
            sizes = {name: math.prod(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - no dict
    except (OSError, SafetensorError) as error:
        raise UsageError(
            f"{weights} can't be read.", why=str(error), fix="Copy or download the adapter again."
        ) from None
    return EarlierAdapter(
        path=str(folder),
        sha256=sha256(weights),
        kind=str(settings.get("peft_type", "unknown")),
        task=str(settings.get("task_type") or "CAUSAL_LM"),
        parameters=sum(size for name, size in sizes.items() if _is_trained(name, settings)),
        settings={name: value for name, value in settings.items() if name in _TOLD and value is not None},
    )


def _is_trained(name: str, settings: dict[str, Any]) -> bool:
    """Whether an adapter's tensor is its own: PEFT also saves embeddings that were only widened, and tied rows."""
    layer, _, tokens = name.removeprefix("base_model.model.").partition(".token_adapter.")
    listed = settings.get("trainable_token_indices")
    own = not tokens or not isinstance(listed, dict) or layer in listed
    return own and not name.endswith(_WIDENED)


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

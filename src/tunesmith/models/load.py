"""Loading tokenizers and models with Transformers and PEFT; everything heavy is imported when used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..records import ModelFacts

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ADAPTER_FILE = "adapter_config.json"
# What tokenizers of Transformers keep their vocabulary in.
_TOKENIZER_FILES = ("tokenizer*", "vocab*", "*.model", "*.tiktoken", "*.bpe", "*vocab.json", "tekken.json")


def load_tokenizer(
    location: str | Path, *, revision: str | None = None, chat_template: str | None = None
) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or Hub model, with `chat_template` (a file's path) in place of its own when given.

    Raises:
        UsageError: there is no tokenizer, or the template file can't be read.
    """
    folder = Path(location)
    if folder.is_dir() and not any(file for pattern in _TOKENIZER_FILES for file in folder.glob(pattern)):
        raise _no_tokenizer(location)
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(location), revision=revision)
    except (OSError, ValueError, StrictDataclassError) as error:
        raise UsageError(
            f"No tokenizer could be loaded from {location}.",
            why=str(error).splitlines()[0],
            fix="Check the model's name or folder; it needs tokenizer.json and tokenizer_config.json.",
        ) from error
    if len(tokenizer) <= len(set(tokenizer.all_special_tokens)):
        # Without a file, Transformers 5 makes an empty tokenizer that turns every text into nothing.
        raise _no_tokenizer(location)
    if chat_template is not None:
        tokenizer.chat_template = read_template(chat_template)
    return tokenizer


def _no_tokenizer(location: str | Path) -> UsageError:
    return UsageError(
        f"{location} has no tokenizer.",
        why="Its vocabulary is empty: tokenizer.json, tokenizer.model or vocab.json isn't there.",
        fix="Save the tokenizer into the model's folder with save_pretrained, or download the model again.",
    )


def read_template(path: str) -> str:
    """The text of a Jinja chat template file.

    Raises:
        UsageError: the file isn't there or isn't text.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"The chat template {path} can't be read.",
            why=str(error),
            fix="Give the path of a Jinja file in `chat_template:`.",
        ) from error


def load_model(location: str | Path, *, revision: str | None = None, **kwargs: Any) -> PreTrainedModel:
    """A causal language model from a folder or the Hub; `kwargs` go to from_pretrained (dtype, ...).

    Model code from the repository is never run.

    Raises:
        UsageError: there are no such weights, or they need code from the repository.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        return AutoModelForCausalLM.from_pretrained(str(location), revision=revision, **kwargs)
    except (OSError, ValueError, StrictDataclassError) as error:
        raise UsageError(
            f"No model could be loaded from {location}.",
            why=str(error).splitlines()[0],
            fix="Check the model's name or folder; it needs config.json and *.safetensors.",
        ) from error


def is_adapter(folder: Path) -> bool:
    """Whether `folder` holds a PEFT adapter rather than a whole model."""
    return (folder / ADAPTER_FILE).exists()


def load_base(facts: ModelFacts, **kwargs: Any) -> PreTrainedModel:
    """The base model of a plan, exactly the revision that was planned."""
    return load_model(facts.location, revision=facts.revision, **kwargs)


def load_tuned(facts: ModelFacts, folder: Path, **kwargs: Any) -> PreTrainedModel:
    """The result in `folder`: a whole model, or the base of `facts` with the adapter on it (a PeftModel)."""
    if not is_adapter(folder):
        return load_model(folder, **kwargs)
    from peft import PeftModel

    return PeftModel.from_pretrained(load_base(facts, **kwargs), str(folder))

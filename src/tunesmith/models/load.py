"""Loading tokenizers and models with Transformers and PEFT; everything heavy is imported when used."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..errors import UsageError
from ..files import sha256
from ..records import EarlierAdapter, Head, ModelFacts
from ..rules import FindingsError, finding
from .source import ADAPTER_FILE, ADAPTER_WEIGHTS
from .tokens import widen

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

_CLASSES: Final[dict[Head, str]] = {
    "text": "AutoModelForCausalLM",
    "images": "AutoModelForImageTextToText",
    "score": "AutoModelForSequenceClassification",
}
# What tokenizers of Transformers keep their vocabulary in.
_TOKENIZER_FILES = ("tokenizer*", "vocab*", "*.model", "*.tiktoken", "*.bpe", "*vocab.json", "tekken.json")


def _of_what_is_used(record: logging.LogRecord) -> bool:
    """Not of bitsandbytes' kernel that PEFT's import of it looks for; _keep_as_quantised sees that none uses it."""
    return "gemm_4bit_forward" not in str(record.msg)


logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(_of_what_is_used)


def load_tokenizer(
    location: str | Path,
    *,
    revision: str | None = None,
    chat_template: str | None = None,
    tokens: Iterable[str] = (),
) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or Hub model, with `chat_template` (a file's path) in place of its own when given.

    Those of `tokens` that it lacks are added.

    Raises:
        UsageError: there is no tokenizer, or the template file can't be read.
    """
    folder = Path(location)
    if folder.is_dir() and not any(file for pattern in _TOKENIZER_FILES for file in folder.glob(pattern)):
        raise _no_tokenizer(location)
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AddedToken, AutoTokenizer

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
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in tokens])
    return tokenizer


def load_planned_tokenizer(facts: ModelFacts, chat_template: str | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer that a plan's model is trained with.

    Raises:
        UsageError: there is none, or the template file can't be read.
    """
    place: str | Path = facts.tokenizer or facts.location
    revision = None if facts.tokenizer else facts.revision
    return load_tokenizer(place, revision=revision, chat_template=chat_template, tokens=facts.tokens)


def _no_tokenizer(location: str | Path) -> UsageError:
    return UsageError(
        f"{location} has no tokenizer.",
        why="Its vocabulary is empty: tokenizer.json, tokenizer.model or vocab.json isn't there.",
        fix="Save the tokenizer into the model's folder with save_pretrained, or download the model again.",
    )


def load_processor(
    location: str | Path, *, revision: str | None = None, chat_template: str | None = None
) -> ProcessorMixin:
    """The processor of a model that takes images, with `chat_template` (a file's path) in place of its own when given.

    Raises:
        UsageError: there is none, it needs code from the repository, or the template file can't be read.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoProcessor, ProcessorMixin

    try:
        processor = AutoProcessor.from_pretrained(str(location), revision=revision)
    except (OSError, ValueError, ImportError, StrictDataclassError) as error:
        raise _no_processor(location, str(error).splitlines()[0]) from error
    if not isinstance(processor, ProcessorMixin):
        raise _no_processor(location, "Only its tokenizer is there, and nothing that reads images.")
    if chat_template is not None:
        processor.chat_template = read_template(chat_template)
    return processor


def _no_processor(location: str | Path, why: str) -> UsageError:
    return UsageError(
        f"No processor of images could be loaded from {location}.",
        why=why,
        fix="Save the model's processor into its folder with save_pretrained: it writes processor_config.json.",
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


def load_model(
    location: str | Path, *, revision: str | None = None, head: Head = "text", **kwargs: Any
) -> PreTrainedModel:
    """A model from a folder or the Hub, with the head that is asked for; `kwargs` go to from_pretrained (dtype, ...).

    Weights of a head that the files lack are random: seed the generators before where that matters. Model code from
    the repository is never run.

    Raises:
        UsageError: there are no such weights, they have no such head, or they need code from the repository.
    """
    import transformers
    from huggingface_hub.errors import StrictDataclassError
    from transformers.utils import logging

    logging.disable_progress_bar()
    verbosity = logging.get_verbosity()
    if head == "score":
        kwargs["num_labels"] = 1
        logging.set_verbosity_error()  # it would report the head that a language model lacks
    try:
        return getattr(transformers, _CLASSES[head]).from_pretrained(str(location), revision=revision, **kwargs)
    except (OSError, ValueError, StrictDataclassError) as error:
        raise UsageError(
            f"No model could be loaded from {location}.",
            why=str(error).splitlines()[0],
            fix="Check the model's name or folder; it needs config.json and *.safetensors.",
        ) from error
    finally:
        logging.set_verbosity(verbosity)


def is_adapter(folder: Path) -> bool:
    """Whether `folder` holds a PEFT adapter rather than a whole model."""
    return (folder / ADAPTER_FILE).exists()


def load_base(facts: ModelFacts, *, head: Head = "text", **kwargs: Any) -> PreTrainedModel:
    """The model that a plan starts from, exactly the revision that was planned, earlier runs' adapters merged into it.

    An adapter is merged in float32, as export does it, and only then is the dtype in `kwargs` taken.

    Raises:
        UsageError: there are no such weights.
        FindingsError: P064, an earlier adapter isn't what was planned.
    """
    return _merged(facts, facts.earlier, head, kwargs)


def load_tuned(facts: ModelFacts, folder: Path, *, head: Head = "text", **kwargs: Any) -> PreTrainedModel:
    """The result in `folder`: a whole model, or the base of `facts` with the adapter on it (a PeftModel).

    Raises:
        UsageError, FindingsError: as for `load_base`.
    """
    if not is_adapter(folder):
        return load_model(folder, head=head, **kwargs)
    return put_on(load_under(facts, head=head, **kwargs), folder)


def load_under(facts: ModelFacts, *, head: Head = "text", **kwargs: Any) -> PreTrainedModel:
    """The model under the adapter that a plan trains: that which it starts from, or, where an earlier run's adapter is
    trained on, the model without it.

    Raises:
        UsageError, FindingsError: as for `load_base`.
    """  # fmt: skip
    return _merged(facts, facts.earlier[:-1] if facts.continues else facts.earlier, head, kwargs)


def bare_is_base(facts: ModelFacts) -> bool:
    """Whether a result with its adapter switched off is the model that the plan started from.

    It isn't where an earlier run's adapter was trained on.
    """
    return not facts.continues


def put_on(model: PreTrainedModel, adapter: Path, *, trains: bool = False) -> Any:
    """A model with the adapter in a folder on it (a PeftModel), to be trained on or only used."""
    from peft import PeftConfig, PeftModel

    config = PeftConfig.from_pretrained(str(adapter))
    if config.task_type == "CAUSAL_LM" and not model.can_generate():
        config.task_type = None  # a language model's adapter under a reward model's head
    return PeftModel.from_pretrained(model, str(adapter), config=config, is_trainable=trains)


def _merged(facts: ModelFacts, adapters: Sequence[EarlierAdapter], head: Head, kwargs: dict[str, Any]) -> Any:
    """The model of `facts` with its embedding as wide as planned and adapters merged into it, the oldest first."""
    import torch

    wanted = kwargs if not adapters else {**kwargs, "dtype": torch.float32}
    model = load_model(facts.location, revision=facts.revision, head=head, **wanted)
    if "quantization_config" in kwargs:
        _keep_as_quantised(model)
    if facts.embeddings:
        widen(model, facts.embeddings)
    for adapter in adapters:
        _check_unchanged(adapter)
        model = put_on(model, Path(adapter.path)).merge_and_unload()
    if not adapters:
        return model
    # PEFT froze what the adapter was on.
    return model.requires_grad_(True).to(_dtype(kwargs.get("dtype"), facts))


def _keep_as_quantised(model: PreTrainedModel) -> None:
    """Keep bitsandbytes from packing 4-bit weights anew at the first evaluation on some CPUs.

    Its packing rounds their scales to bf16, so that a model would no longer be the one that was trained so far; and it
    fails on layers whose width is no multiple of 64 (bitsandbytes 0.50, Linear4bit.forward).
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _check_unchanged(adapter: EarlierAdapter) -> None:
    weights = Path(adapter.path) / ADAPTER_WEIGHTS
    if not weights.is_file() or sha256(weights) != adapter.sha256:
        state = "has other weights" if weights.is_file() else "is gone"
        raise FindingsError([finding("P064", adapter.path, path=adapter.path, state=state)])


def _dtype(wanted: Any, facts: ModelFacts) -> Any:
    """A dtype as from_pretrained takes it: torch's, its name, or the model's own."""
    import torch

    name = facts.dtype if wanted in (None, "auto") else wanted
    return getattr(torch, name, torch.float32) if isinstance(name, str) else name

"""The installed TRL's own preparation of a dataset for supervised fine-tuning, without a model and without weights."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from ..errors import EnvironmentLacksError, UsageError
from .rows import Row

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

_PARAMETERS: Final = ["self", "dataset", "processing_class", "args", "packing", "formatting_func", "dataset_name"]
_PLAIN_KEYS: Final = frozenset({"role", "content"})


def as_dataset(rows: Sequence[Row]) -> Dataset:
    """Prepared rows as a dataset; the audit and the training worker must both make theirs here.

    Messages with more keys than role and content keep exactly their own ones: as Arrow structs, each would get the keys
    of all others with null in them, tool calls their arguments too, and chat templates render those.
    """
    from datasets import Dataset, Features, Json, List, Value

    conversations = [value for row in rows for value in row.values() if isinstance(value, list)]
    names = list(dict.fromkeys(name for row in rows for name in row))
    if all(message.keys() == _PLAIN_KEYS for messages in conversations for message in messages):
        return Dataset.from_dict({name: [row.get(name) for row in rows] for name in names})
    kinds = {name: next(row[name] for row in rows if name in row) for name in names}
    features = {name: List(Json()) if isinstance(kind, list) else Value("string") for name, kind in kinds.items()}
    return Dataset.from_dict({name: [row.get(name) for row in rows] for name in names}, features=Features(features))


def arguments(training: dict[str, Any]) -> SimpleNamespace:
    """`training` over the defaults of the installed SFTConfig, without building one: that would set up a device."""
    from trl import SFTConfig

    defaults = {
        field.name: field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        for field in dataclasses.fields(SFTConfig)
    }
    return SimpleNamespace(**{**defaults, **training})


def prepare_dataset(dataset: Dataset, tokenizer: PreTrainedTokenizerBase, training: dict[str, Any]) -> Dataset:
    """What SFTTrainer makes of `dataset`: the columns input_ids and labels, after cutting, dropping and packing.

    Args:
        dataset: Rows in a layout of TRL's, or rows that have input_ids and labels already.
        tokenizer: The model's, with its chat template.
        training: Arguments of SFTConfig; those left out have its defaults.

    Raises:
        EnvironmentLacksError: the installed TRL prepares datasets in another way than this code knows.
        UsageError: assistant_only_loss is asked for, and the chat template can't mark the assistant's turns.
    """
    from trl import SFTTrainer

    args = arguments(training)
    _check_shape(SFTTrainer)
    trainer = object.__new__(SFTTrainer)
    trainer._tokenizer = tokenizer
    trainer.chat_template = training_template(tokenizer) if args.assistant_only_loss else None
    trainer.completion_only_loss = args.completion_only_loss
    if args.completion_only_loss is None:
        # As SFTTrainer.__init__ decides it.
        trainer.completion_only_loss = {"prompt", "completion"} <= set(dataset.column_names)
    try:
        with _quiet():
            return trainer._prepare_dataset(dataset, tokenizer, args, args.packing, None, "train")
    except AttributeError as error:
        if isinstance(error.obj, (SFTTrainer, SimpleNamespace)):
            raise _other_shape(f"its preparation reads {error.name!r}") from error
        raise


def training_template(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The template TRL puts in place of the tokenizer's for assistant-only loss; None where its own has the marks.

    Raises:
        UsageError: the template has no generation marks, and TRL knows no version of it that has.
    """
    from trl.chat_template_utils import get_training_chat_template, has_generation_markers

    if has_generation_markers(tokenizer.chat_template):
        return None
    try:
        template: str | None = get_training_chat_template(tokenizer)
    except ValueError as error:
        raise UsageError(
            "assistant_only_loss is set, but the chat template doesn't mark what the assistant generates.",
            why="TRL needs {% generation %} marks in the template, and has no marked version of this one.",
            fix="Leave assistant_only_loss out, or give a template with marks: `chat_template: template.jinja`.",
        ) from error
    return template


def can_mark(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the template, or TRL's version of it, marks what the assistant generates."""
    if not tokenizer.chat_template:
        return False
    try:
        training_template(tokenizer)
    except UsageError:
        return False
    return True


def library() -> str:
    """The code that prepares the rows, with its version."""
    import trl

    return f"trl {trl.__version__}, SFTTrainer._prepare_dataset"


def _check_shape(trainer: Any) -> None:
    method = getattr(trainer, "_prepare_dataset", None)
    found = list(inspect.signature(method).parameters) if method else None
    if found != _PARAMETERS:
        raise _other_shape(f"SFTTrainer._prepare_dataset takes {found}" if found else "there is no _prepare_dataset")


def _other_shape(what: str) -> EnvironmentLacksError:
    return EnvironmentLacksError(
        f"The installed TRL prepares data in an unknown way: {what}.",
        why=f"The label audit runs the trainer's own code ({library()}), and this version was not tested.",
        fix="Install the version that tunesmith names: `pip install 'trl==1.16.*'`.",
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and no hints of the libraries: only the CLI writes to the terminal."""
    from datasets.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled
    from transformers.utils import logging

    enabled, verbosity = is_progress_bar_enabled(), logging.get_verbosity()
    disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if enabled:
            enable_progress_bar()

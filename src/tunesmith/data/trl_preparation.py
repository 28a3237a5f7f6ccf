"""The installed TRL's own preparation of a dataset, for every method it tokenises rows for, without a model."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from ..errors import EnvironmentLacksError, UsageError
from .rows import Row

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

_PLAIN_KEYS: Final = frozenset({"role", "content"})
_COLLATED: Final = 16  # rows in a batch: a batch is padded to its longest row


@dataclass(frozen=True)
class Trainer:
    """What this code knows of one of TRL's trainers.

    Attributes:
        name: The trainer's class in `trl`.
        config: The class of its arguments.
        parameters: The parameters of its `_prepare_dataset`.
        sides: Token sequences that it makes of a row.
        collator: The collator that cuts rows and masks prompts, in the trainer's module; None where the preparation
            does both.
        cut_by: The arguments that the collator takes from the trainer's.
    """

    name: str
    config: str
    parameters: Sequence[str]
    sides: int = 1
    collator: str | None = None
    cut_by: Sequence[str] = ()


_SFT = ("self", "dataset", "processing_class", "args", "packing", "formatting_func", "dataset_name")
_OTHERS = ("self", "dataset", "processing_class", "args", "dataset_name")
_PAIRS = "DataCollatorForPreference"
_UNPAIRED = "DataCollatorForUnpairedPreference"

TRAINERS: Final = {
    "sft": Trainer("SFTTrainer", "SFTConfig", _SFT),
    "clm": Trainer("SFTTrainer", "SFTConfig", _SFT),
    "dpo": Trainer("DPOTrainer", "DPOConfig", _OTHERS, 2, _PAIRS, ("max_length", "truncation_mode")),
    "kto": Trainer("KTOTrainer", "KTOConfig", _OTHERS, 1, _UNPAIRED, ("max_length",)),
    "reward": Trainer("RewardTrainer", "RewardConfig", _OTHERS, 2, _PAIRS),
}


def as_dataset(rows: Sequence[Row]) -> Dataset:
    """Prepared rows as a dataset; the audit and the training worker must both make theirs here.

    Messages with more keys than role and content keep exactly their own ones: as Arrow structs, each would get the keys
    of all others with null in them, tool calls their arguments too, and chat templates render those.
    """
    from datasets import Dataset, Features

    lists = (value for row in rows for value in row.values() if isinstance(value, list))
    messages = (item for value in lists for item in value if isinstance(item, dict))
    names = list(dict.fromkeys(name for row in rows for name in row))
    if all(message.keys() == _PLAIN_KEYS for message in messages):
        return Dataset.from_dict({name: [row.get(name) for row in rows] for name in names})
    features = {name: _feature(next(row[name] for row in rows if name in row)) for name in names}
    return Dataset.from_dict({name: [row.get(name) for row in rows] for name in names}, features=Features(features))


def _feature(value: Any) -> Any:
    from datasets import Json, List, Value

    if isinstance(value, list):
        return List(Json())
    return Value("bool" if isinstance(value, bool) else "string")


def arguments(training: dict[str, Any], method: str = "sft") -> SimpleNamespace:
    """`training` over the defaults of the installed config class, without building one: that would set up a device."""
    import trl

    config = getattr(trl, TRAINERS[method].config)
    defaults = {
        field.name: field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        for field in dataclasses.fields(config)
    }
    return SimpleNamespace(**{**defaults, **training})


def prepare_dataset(
    dataset: Dataset, tokenizer: PreTrainedTokenizerBase, training: dict[str, Any], method: str = "sft"
) -> Dataset:
    """What the trainer of `method` makes of `dataset`, before any batch is made of it.

    Args:
        dataset: Rows in a layout of TRL's; for sft also rows that have input_ids and labels already.
        tokenizer: The model's, with its chat template.
        training: Arguments of the config class; those left out have its defaults.
        method: Any of TRAINERS.

    Returns:
        sft and clm: the columns input_ids and labels, after cutting, dropping and packing. dpo: prompt_ids, chosen_ids,
        rejected_ids; kto: prompt_ids, completion_ids; reward: chosen_ids, rejected_ids, the prompt in both; rows
        dropped, none cut: `collate` cuts. Other columns may stand beside these.

    Raises:
        EnvironmentLacksError: the installed TRL prepares datasets in another way than this code knows.
        UsageError: assistant_only_loss is asked for, and the chat template can't mark the assistant's turns.
    """
    known = TRAINERS[method]
    trainer_class = _trainer_class(method)
    args = arguments(training, method)
    trainer = object.__new__(trainer_class)
    trainer._tokenizer = tokenizer
    given = {"dataset": dataset, "processing_class": tokenizer, "args": args, "dataset_name": "train"}
    if known.name == "SFTTrainer":
        trainer.chat_template = training_template(tokenizer) if args.assistant_only_loss else None
        trainer.completion_only_loss = args.completion_only_loss
        if args.completion_only_loss is None:
            # As SFTTrainer.__init__ decides it.
            trainer.completion_only_loss = {"prompt", "completion"} <= set(dataset.column_names)
        given |= {"packing": args.packing, "formatting_func": None}
    if method == "kto":
        # The completions that the KL term is estimated from are other rows' completions; they aren't trained.
        trainer.calculate_KL = False
        trainer.desirable_weight, trainer.undesirable_weight = args.desirable_weight, args.undesirable_weight
    try:
        with _quiet():
            return trainer._prepare_dataset(**given)
    except AttributeError as error:
        if isinstance(error.obj, (trainer_class, SimpleNamespace)):
            raise _other_shape(f"its preparation reads {error.name!r}", method) from error
        raise


def collate(
    dataset: Dataset, tokenizer: PreTrainedTokenizerBase, training: dict[str, Any], method: str
) -> Iterator[dict[str, Any]]:
    """The batches that the trainer's own collator makes of prepared rows, cut at max_length.

    Each is a dict of tensors, shape (sides x rows, tokens): input_ids, attention_mask and, unless the method scores
    whole sequences (reward), completion_mask. The first half is the chosen sides where rows have two.

    Raises:
        EnvironmentLacksError: the installed TRL has no such collator.
    """
    known = TRAINERS[method]
    args = arguments(training, method)
    module = sys.modules[_trainer_class(method).__module__]
    try:
        collator = getattr(module, str(known.collator))(
            pad_token_id=tokenizer.pad_token_id or 0, **{name: getattr(args, name) for name in known.cut_by}
        )
    except (AttributeError, TypeError) as error:
        raise _other_shape(str(error), method) from error
    columns = [name for name in dataset.column_names if name.endswith("_ids")]
    needed = dataset.select_columns([*columns, *(["label"] if "label" in dataset.column_names else [])])
    for start in range(0, len(needed), _COLLATED):
        batch = needed[start : start + _COLLATED]
        yield collator([dict(zip(batch, row, strict=True)) for row in zip(*batch.values(), strict=True)])


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


def library(method: str = "sft") -> str:
    """The code that prepares the rows, with its version."""
    import trl

    return f"trl {trl.__version__}, {TRAINERS[method].name}._prepare_dataset"


def _trainer_class(method: str) -> Any:
    import trl

    known = TRAINERS[method]
    trainer = getattr(trl, known.name)
    prepare = getattr(trainer, "_prepare_dataset", None)
    found = tuple(inspect.signature(prepare).parameters) if prepare else None
    if found != known.parameters:
        said = f"{known.name}._prepare_dataset takes {list(found)}" if found else "there is no _prepare_dataset"
        raise _other_shape(said, method)
    return trainer


def _other_shape(what: str, method: str) -> EnvironmentLacksError:
    return EnvironmentLacksError(
        f"The installed TRL prepares data in an unknown way: {what}.",
        why=f"The label audit runs the trainer's own code ({library(method)}), and this version was not tested.",
        fix="Install the version that tunesmith names: `pip install 'trl==1.16.*'`.",
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and no hints of the libraries: only the CLI writes to the terminal."""
    from datasets.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled
    from transformers.utils import logging as transformers_logging

    enabled, verbosity = is_progress_bar_enabled(), transformers_logging.get_verbosity()
    trl = logging.getLogger("trl")
    level = trl.level
    disable_progress_bar()
    transformers_logging.set_verbosity_error()
    trl.setLevel(logging.ERROR)
    try:
        yield
    finally:
        trl.setLevel(level)
        transformers_logging.set_verbosity(verbosity)
        if enabled:
            enable_progress_bar()

"""What of a tokenizer and of SFTConfig's arguments decides about tokens and labels; whatever else is set is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ...records.data import TrainedLayout
from ..rows import Row
from ..trl_preparation import arguments, training_template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MUST_BE_UNSET: Final = ("dataset_kwargs", "chat_template_path", "eos_token")
_KEYS: Final = {
    "text": {"text"},
    "messages": {"messages", "tools"},
    "prompt-completion": {"prompt", "completion", "tools"},
}
_MODES: Final = ("keep_start", "keep_end")


class NotFastError(Exception):
    """The fast path doesn't know this case, or doesn't give what TRL gives; the message says why."""


@dataclass(frozen=True)
class Settings:
    """The arguments that the preparation reads.

    Attributes:
        max_length: Tokens at which rows are cut; None keeps them whole.
        keep_end: Cut from the start of rows.
        packing: Rows are packed, which cuts them too.
        completion_only: Mask prompts, where rows have one.
        assistant_only: Train what the template marks as the assistant's.
        template: The chat template in place of the tokenizer's own.
        eos: Ends plain texts.
    """

    max_length: int | None
    keep_end: bool
    packing: bool
    completion_only: bool
    assistant_only: bool
    template: str | None
    eos: str

    @classmethod
    def of(cls, training: dict[str, Any], tokenizer: PreTrainedTokenizerBase, *, conversational: bool) -> Settings:
        """Those of `training`, with the defaults of the installed SFTConfig.

        Args:
            training: Arguments of SFTConfig.
            tokenizer: The model's.
            conversational: The rows are made of messages.

        Raises:
            NotFastError: an argument has a value that this code doesn't know.
        """
        args = arguments(training)
        for name in _MUST_BE_UNSET:
            if getattr(args, name, None) is not None:
                raise NotFastError(f"{name} is set")
        cut = args.max_length
        if cut is not None and cut < 1:
            raise NotFastError(f"max_length is {cut}")
        if args.packing and cut is None:
            raise NotFastError("packing needs a max_length")
        if args.truncation_mode not in _MODES or args.dataset_text_field != "text":
            raise NotFastError(
                f"truncation_mode is {args.truncation_mode}, dataset_text_field {args.dataset_text_field}"
            )
        if not isinstance(tokenizer.eos_token, str):
            raise NotFastError("the tokenizer has no EOS token")
        if args.assistant_only_loss and not conversational:
            raise NotFastError("assistant_only_loss is set for plain texts")
        return cls(
            max_length=cut,
            keep_end=args.truncation_mode == "keep_end",
            packing=args.packing,
            completion_only=args.completion_only_loss is not False,
            assistant_only=args.assistant_only_loss,
            template=training_template(tokenizer) if args.assistant_only_loss else None,
            eos=tokenizer.eos_token,
        )


def check_tokenizer(tokenizer: Any) -> None:
    """Refuse tokenizers that don't tokenize and render with Transformers' common code.

    Raises:
        NotFastError: it isn't one of the tokenizers library, or its class does something of its own.
    """
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

    kind = type(tokenizer)
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise NotFastError(f"{kind.__name__} isn't a tokenizer of the tokenizers library")
    if any(
        getattr(kind, name) is not getattr(base, name)
        for base, name in (
            (PreTrainedTokenizerBase, "__call__"),
            (PreTrainedTokenizerBase, "apply_chat_template"),
            (PreTrainedTokenizerBase, "get_chat_template"),
            (PreTrainedTokenizerFast, "_encode_plus"),
        )
    ):
        raise NotFastError(f"{kind.__name__} tokenizes or renders in a way of its own")
    if tokenizer.split_special_tokens:
        raise NotFastError("split_special_tokens is set")


def check_rows(rows: Sequence[Row], layout: TrainedLayout) -> None:
    """Refuse rows that aren't all in the same layout, as `data.prepare` makes them.

    Raises:
        NotFastError: which columns or values are there besides.
    """
    if not rows:
        raise NotFastError("there are no rows")
    if layout not in _KEYS:
        raise NotFastError(f"rows of the layout {layout} aren't for supervised fine-tuning")
    known = _KEYS[layout]
    needed = known - {"tools"}
    first = {key: type(rows[0].get(key)) for key in needed}
    for row in rows:
        if not needed <= row.keys() <= known:
            raise NotFastError(f"a row has the columns {sorted(row)}")
        if any(type(row[key]) is not kind for key, kind in first.items()):
            raise NotFastError("rows of texts and of messages are mixed")
        if not isinstance(row.get("tools"), str | None):
            raise NotFastError("tools aren't JSON text")
        for key in needed:
            if isinstance(row[key], list):
                _check_messages(row[key])
    kinds = set(first.values())
    if kinds not in ({str}, {list}) or (kinds == {str} and layout == "messages"):
        raise NotFastError(f"rows hold {sorted(kind.__name__ for kind in kinds)}")


def _check_messages(messages: list[Any]) -> None:
    if not messages:
        raise NotFastError("a conversation is empty")
    for message in messages:
        if not isinstance(message, dict) or "role" not in message:
            raise NotFastError("a message has no role")
        if not isinstance(message.get("content"), str | None):
            raise NotFastError("a message's content isn't text")

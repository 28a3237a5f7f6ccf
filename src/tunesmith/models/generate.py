"""Greedy answers of a model, whatever its own generation settings are."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase


def greedy(
    model: Any,
    inputs: Mapping[str, Tensor],
    *,
    max_new_tokens: int,
    stops: Sequence[int],
    pad: int | None,
    max_time: float | None = None,
) -> Tensor:
    """The most likely continuations, token by token, (rows, new tokens).

    Args:
        model: A language model, or a PeftModel on one.
        inputs: input_ids and attention_mask, (rows, tokens), filled up on the left.
        max_new_tokens: Tokens after which an answer is cut.
        stops: Ids that end an answer.
        pad: Id that fills up answers that ended.
        max_time: Seconds after which all answers are cut.
    """
    from transformers import GenerationConfig

    groups = _unpadded(model, inputs)
    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        max_time=max_time and max_time / len(groups),
        eos_token_id=list(stops) or None,
        pad_token_id=pad,
        use_cache=True,
    )
    # generate() fills what a config leaves open from the model's own (a repetition penalty, say), and it is the
    # language model's that counts: PEFT doesn't hand on what is set on a PeftModel with virtual tokens (0.21).
    whole = model.get_base_model() if hasattr(model, "get_base_model") else model
    own = whole.generation_config
    whole.generation_config = config
    try:
        return _joined([(rows, _continued(model, part, config)) for rows, part in groups], pad)
    finally:
        whole.generation_config = own


def _continued(model: Any, inputs: Mapping[str, Tensor], config: GenerationConfig) -> Tensor:
    import torch

    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Position ids are not supported")  # rows of like length need none
        output: Tensor = model.generate(**inputs, generation_config=config)
    return output[:, inputs["input_ids"].shape[1] :]


def _unpadded(model: Any, inputs: Mapping[str, Tensor]) -> list[tuple[list[int], Mapping[str, Tensor]]]:
    """Rows that are answered together, by their numbers, and their inputs: all rows, or those of like length.

    PEFT's prompt tuning puts the virtual tokens before the padding and drops the positions that would make up for it
    (0.21), so that a padded row is answered as if it stood further away from them.
    """
    tuned = getattr(model, "active_peft_config", None)
    lengths = inputs["attention_mask"].sum(1).tolist()
    if len(set(lengths)) == 1 or tuned is None or tuned.peft_type != "PROMPT_TUNING":
        return [(list(range(len(lengths))), inputs)]
    groups = {length: [row for row, own in enumerate(lengths) if own == length] for length in lengths}
    names = ("input_ids", "attention_mask")
    return [(rows, {name: inputs[name][rows, -length:] for name in names}) for length, rows in groups.items()]


def _joined(answers: Sequence[tuple[list[int], Tensor]], pad: int | None) -> Tensor:
    """The answers of groups of rows, in the order of the rows."""
    from torch.nn.utils.rnn import pad_sequence

    by_row = {row: answer for rows, group in answers for row, answer in zip(rows, group, strict=True)}
    return pad_sequence([by_row[row] for row in sorted(by_row)], True, pad or 0)


def stop_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Every token id that ends an answer: the tokenizer's EOS and those of the model's generation config."""
    configured = model.generation_config.eos_token_id
    several = configured if isinstance(configured, list) else [configured]
    return sorted({token for token in [tokenizer.eos_token_id, *several] if token is not None})


def pad_id(tokenizer: PreTrainedTokenizerBase, stops: Sequence[int]) -> int:
    """The token that fills up rows: the tokenizer's, else the first that ends an answer."""
    if tokenizer.pad_token_id is not None:
        return int(tokenizer.pad_token_id)
    return stops[0] if stops else 0

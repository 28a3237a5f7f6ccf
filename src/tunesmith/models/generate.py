"""Answers of a model, greedy or drawn at random, whatever its own generation settings are."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import Cache, PreTrainedModel, PreTrainedTokenizerBase

    from .decoding import Drawn

_AT_ONCE: Final = 16
"""Tokens after which rows that have ended leave the batch."""
_UNMASKED: Final = ("rwkv",)
"""Kinds of models that pay no heed to the attention mask, by Transformers' names (5.23)."""


@dataclass(frozen=True)
class _Way:
    """How a batch is continued: until when, by the clock of `time.monotonic`, and what draws its tokens, if anything.

    The others are those of `greedy`.
    """

    max_new_tokens: int
    stops: Sequence[int]
    pad: int | None
    until: float | None = None
    drawn: Drawn | None = None


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
    groups = _unpadded(model, inputs)
    found = []
    for rows, part in groups:
        until = time.monotonic() + max_time / len(groups) if max_time else None
        found.append((rows, _continued(model, part, _Way(max_new_tokens, stops, pad, until))))
    return _joined(found, pad)


def sampled(
    model: Any,
    inputs: Mapping[str, Tensor],
    *,
    max_new_tokens: int,
    stops: Sequence[int],
    pad: int | None,
    temperature: float,
    seeds: Sequence[int],
) -> Tensor:
    """Continuations drawn at random, (rows, new tokens).

    Args:
        model: As for `greedy`.
        inputs: As for `greedy`.
        max_new_tokens: As for `greedy`.
        stops: As for `greedy`.
        pad: As for `greedy`.
        temperature: What logits are divided by before tokens are drawn; above 0.
        seeds: One for each row, by which it draws alike in any batch.
    """
    from .decoding import Drawn

    found = []
    for rows, part in _unpadded(model, inputs):
        drawn = Drawn([seeds[row] for row in rows], max_new_tokens, temperature)
        found.append((rows, _continued(model, part, _Way(max_new_tokens, stops, pad, drawn=drawn))))
    return _joined(found, pad)


def _continued(model: Any, inputs: Mapping[str, Tensor], way: _Way) -> Tensor:
    """A few tokens at a time; rows that have ended leave the batch in between."""
    cache = _cache(model, inputs["input_ids"].shape[1] + way.max_new_tokens)
    if cache is None:
        return _steps(model, inputs, way, way.max_new_tokens)
    import torch

    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    rows = torch.arange(len(ids), device=ids.device)
    stops = torch.tensor(list(way.stops), device=ids.device, dtype=ids.dtype)
    found = ids.new_full((len(ids), way.max_new_tokens), way.pad or 0)
    made = 0
    while made < way.max_new_tokens and len(rows) and not _is_late(way):
        part = {"input_ids": ids, "attention_mask": mask, "past_key_values": cache}
        new = _steps(model, part, way, min(_AT_ONCE, way.max_new_tokens - made))
        found[rows, made : made + new.shape[1]] = new
        made += new.shape[1]
        going = ~torch.isin(new, stops).any(1)
        ids = torch.cat([ids, new], 1)[going]
        mask = torch.cat([mask, torch.ones_like(new)], 1)[going]
        if not going.all():
            rows = rows[going]
            cache.batch_select_indices(going)
            if way.drawn:
                way.drawn.keep(going)
    return found[:, :made]


def _steps(model: Any, inputs: Mapping[str, Any], way: _Way, tokens: int) -> Tensor:
    """Up to `tokens` more, (rows, new tokens)."""
    import torch
    from transformers import GenerationConfig

    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=tokens,
        max_time=way.until and max(way.until - time.monotonic(), 1e-3),
        eos_token_id=list(way.stops) or None,
        pad_token_id=way.pad,
        use_cache=True,
    )
    drawing = {"logits_processor": [way.drawn]} if way.drawn else {}
    # generate() fills what a config leaves open from the model's own (a repetition penalty, say), and it is the
    # language model's that counts: PEFT doesn't hand on what is set on a PeftModel with virtual tokens (0.21).
    whole = _whole(model)
    own = whole.generation_config
    whole.generation_config = config
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Position ids are not supported")  # rows of like length need none
            output: Tensor = model.generate(**inputs, generation_config=config, **drawing)
    finally:
        whole.generation_config = own
    return output[:, inputs["input_ids"].shape[1] :]


def _cache(model: Any, tokens: int) -> Cache | None:
    """A cache with room for so many tokens; None where the model, or an adapter of virtual tokens, has its own kind."""
    from .decoding import roomy_cache

    if getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
        return None
    config = _whole(model).config
    return None if config.is_encoder_decoder else roomy_cache(config.get_text_config(decoder=True), tokens)


def _whole(model: Any) -> Any:
    """The language model under a PeftModel, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _is_late(way: _Way) -> bool:
    return way.until is not None and time.monotonic() > way.until


def _unpadded(model: Any, inputs: Mapping[str, Tensor]) -> list[tuple[list[int], Mapping[str, Tensor]]]:
    """Rows that are answered together, by their numbers, and their inputs: all rows, or those of like length.

    PEFT's prompt tuning puts the virtual tokens before the padding and drops the positions that would make up for it
    (0.21), so that a padded row is answered as if it stood further away from them. A state that reads on whatever the
    mask says holds the padding, too.
    """
    tuned = getattr(model, "active_peft_config", None)
    lengths = inputs["attention_mask"].sum(1).tolist()
    padded = len(set(lengths)) > 1
    unmasked = _whole(model).config.model_type in _UNMASKED or (tuned and tuned.peft_type == "PROMPT_TUNING")
    if not (padded and unmasked):
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

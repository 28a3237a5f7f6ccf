"""What one model does on the held-out rows: its loss on each, and its greedy answers."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..progress import Progress
from .rows import Encoded, Question

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LOGITS_BUDGET = 1 << 28
"""Logits of one batch, at most, in numbers (1 GiB as float32)."""


@dataclass(frozen=True)
class Answer:
    """A model's greedy answer: its text, and whether it ended by itself."""

    text: str
    stopped: bool


def row_losses(
    model: PreTrainedModel, rows: Sequence[Encoded], *, batch_size: int, label: str, progress: Progress
) -> list[float]:
    """Summed negative log-likelihood of each row's trained tokens, in nats, in the order of `rows`.

    Each row needs at least one trained position. Logits are made only where a row of the batch is trained, and the
    softmax is taken in float32.
    """
    vocabulary = model.get_input_embeddings().weight.shape[0]
    losses = [0.0] * len(rows)
    done = 0
    for batch in _by_length([len(row.ids) for row in rows], batch_size, LOGITS_BUDGET // vocabulary):
        for index, loss in zip(batch, _batch_losses(model, [rows[index] for index in batch]), strict=True):
            losses[index] = loss
        done += len(batch)
        progress(label, done, len(rows))
    return losses


def _batch_losses(model: PreTrainedModel, rows: list[Encoded]) -> list[float]:
    import torch
    from torch.nn.functional import cross_entropy

    ids, mask = _pad([row.ids for row in rows], 0, left=False, device=model.device)
    # The logits at a position predict the token after it.
    predicting = torch.tensor(sorted({position - 1 for row in rows for position in row.positions}), device=ids.device)
    with torch.inference_mode():
        logits = _logits(model, ids, mask, predicting)
        losses = []
        for row, own, row_logits in zip(rows, ids, logits, strict=True):
            positions = torch.tensor(row.positions, device=ids.device)
            wanted = row_logits[torch.searchsorted(predicting, positions - 1)].float()
            losses.append(float(cross_entropy(wanted, own[positions], reduction="sum")))
    return losses


def _logits(model: PreTrainedModel, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
    """Logits at `positions` of every row, (rows, positions, vocabulary); all others aren't made where the model can."""
    whole = model.get_base_model() if hasattr(model, "get_base_model") else model
    if "logits_to_keep" in inspect.signature(whole.forward).parameters:
        return model(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=positions).logits
    return model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, positions]


def greedy_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    *,
    max_new_tokens: int,
    batch_size: int,
    label: str,
    progress: Progress,
) -> list[Answer]:
    """The model's most likely continuation of each question, token by token, in the order of `questions`."""
    from transformers import GenerationConfig

    stops = stop_ids(model, tokenizer)
    # Settings of the model's own (a repetition penalty, say) would be merged into a config given to generate().
    model.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=stops or None,
        pad_token_id=_pad_id(tokenizer, stops),
    )
    answers = [Answer("", False)] * len(questions)
    done = 0
    for batch in _by_length([len(question.ids) for question in questions], batch_size):
        ids = _generate(model, [questions[index].ids for index in batch], _pad_id(tokenizer, stops))
        for index, new in zip(batch, ids, strict=True):
            answers[index] = _answer(tokenizer, new, stops)
        done += len(batch)
        progress(label, done, len(questions))
    return answers


def _generate(model: PreTrainedModel, prompts: list[list[int]], pad: int) -> list[list[int]]:
    import torch

    ids, mask = _pad(prompts, pad, left=True, device=model.device)
    with torch.inference_mode():
        output = model.generate(input_ids=ids, attention_mask=mask)
    return list(output[:, ids.shape[1] :].tolist())


def _answer(tokenizer: PreTrainedTokenizerBase, new: list[int], stops: list[int]) -> Answer:
    end = next((position for position, token in enumerate(new) if token in stops), None)
    return Answer(tokenizer.decode(new[:end], skip_special_tokens=True).strip(), end is not None)


def stop_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Every token id that ends an answer: the tokenizer's EOS and those of the model's generation config."""
    configured = model.generation_config.eos_token_id
    several = configured if isinstance(configured, list) else [configured]
    return sorted({token for token in [tokenizer.eos_token_id, *several] if token is not None})


def _pad_id(tokenizer: PreTrainedTokenizerBase, stops: list[int]) -> int:
    if tokenizer.pad_token_id is not None:
        return int(tokenizer.pad_token_id)
    return stops[0] if stops else 0


def _by_length(lengths: Sequence[int], batch_size: int, budget: int | None = None) -> Iterator[list[int]]:
    """Indices in batches of like lengths, longest first, each of at most `budget` padded tokens (or a single row)."""
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    while order:
        size = batch_size if budget is None else max(1, min(batch_size, budget // lengths[order[0]]))
        yield order[:size]
        order = order[size:]


def _pad(rows: list[list[int]], pad: int, *, left: bool, device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids and attention mask, both (rows, longest)."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    side = "left" if left else "right"
    ids = pad_sequence([torch.tensor(row) for row in rows], True, pad, padding_side=side)
    mask = pad_sequence([torch.ones(len(row), dtype=torch.long) for row in rows], True, 0, padding_side=side)
    return ids.to(device), mask.to(device)

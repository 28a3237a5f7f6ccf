"""What one model does on the held-out rows: its loss on each, its score for each, and its greedy answers."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..models.generate import greedy, pad_id, stop_ids
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
    """A model's greedy answer: its text, whether it ended by itself, and its tokens with the one that ended it."""

    text: str
    stopped: bool
    ids: list[int]


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
    if "logits_to_keep" in inspect.signature(_whole(model).forward).parameters and not _prepends_tokens(model):
        return model(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=positions).logits
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    return logits[:, -ids.shape[1] :][:, positions]


def _whole(model: PreTrainedModel) -> PreTrainedModel:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _prepends_tokens(model: PreTrainedModel) -> bool:
    """Whether an adapter puts virtual tokens before the text, which then have logits too."""
    return bool(getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False))


def sequence_scores(
    model: PreTrainedModel,
    rows: Sequence[Sequence[int]],
    *,
    pad: int,
    batch_size: int,
    label: str,
    progress: Progress,
) -> list[float]:
    """The score that a reward model gives each row of token ids, in the order of `rows`.

    `pad` is the token by which the model finds where a row ends, as in its training.
    """
    import torch

    _whole(model).config.get_text_config().pad_token_id = pad
    scores = [0.0] * len(rows)
    done = 0
    for batch in _by_length([len(row) for row in rows], batch_size):
        ids, mask = _pad([list(rows[index]) for index in batch], pad, left=False, device=model.device)
        with torch.inference_mode():
            found = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, 0].float().tolist()
        for index, score in zip(batch, found, strict=True):
            scores[index] = score
        done += len(batch)
        progress(label, done, len(rows))
    return scores


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
    stops = stop_ids(model, tokenizer)
    pad = pad_id(tokenizer, stops)
    answers = [Answer("", False, [])] * len(questions)
    done = 0
    for batch in _by_length([len(question.ids) for question in questions], batch_size):
        ids, mask = _pad([questions[index].ids for index in batch], pad, left=True, device=model.device)
        inputs = {"input_ids": ids, "attention_mask": mask}
        output = greedy(model, inputs, max_new_tokens=max_new_tokens, stops=stops, pad=pad)
        for index, new in zip(batch, output.tolist(), strict=True):
            answers[index] = _answer(tokenizer, new, stops)
        done += len(batch)
        progress(label, done, len(questions))
    return answers


def _answer(tokenizer: PreTrainedTokenizerBase, new: list[int], stops: list[int]) -> Answer:
    end = next((position for position, token in enumerate(new) if token in stops), None)
    text = tokenizer.decode(new[:end], skip_special_tokens=True)
    return Answer(text, end is not None, new if end is None else new[: end + 1])


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

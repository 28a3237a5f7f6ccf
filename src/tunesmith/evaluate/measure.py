"""What one model does on the held-out rows: its loss on each, its score for each, and its greedy answers."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..models.generate import greedy, pad_id, sampled, stop_ids
from ..progress import Progress
from .rows import Encoded, Question, encode_question

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LOGITS_BUDGET = 1 << 28
"""Logits of one batch, at most, in numbers (1 GiB as float32)."""
PROMPT_BUDGET = 1 << 14
"""Tokens of the questions of one batch, at most, padding included: bounds the memory, and is no slower."""


@dataclass(frozen=True)
class Answer:
    """A model's answer.

    Attributes:
        text: What it says.
        stopped: Whether it ended by itself.
        ids: Its tokens with the one that ended it; of a server's answer those that its text has.
        refused: Why a server gave none; then the text is empty.
    """

    text: str
    stopped: bool
    ids: list[int]
    refused: str = ""


def row_losses(
    model: PreTrainedModel, rows: Sequence[Encoded], *, batch_size: int, label: str, progress: Progress
) -> list[float]:
    """Summed negative log-likelihood of each row's trained tokens, in nats, in the order of `rows`.

    Each row needs at least one trained position. Logits are made only where a row of the batch is trained, and the
    softmax is taken in float32.
    """
    vocabulary = model.get_input_embeddings().weight.shape[0]
    losses = [0.0] * len(rows)
    groups = _alike(rows)
    done = 0
    for batch in _by_length([len(rows[group[0]].ids) for group in groups], batch_size, LOGITS_BUDGET // vocabulary):
        chosen = [groups[place] for place in batch]
        for group, found in zip(
            chosen, _batch_losses(model, [[rows[i] for i in group] for group in chosen]), strict=True
        ):
            for index, loss in zip(group, found, strict=True):
                losses[index] = loss
            done += len(group)
        progress(label, done, len(rows))
    return losses


def _alike(rows: Sequence[Encoded]) -> list[list[int]]:
    """Indices of rows that one pass serves: those that differ in their last token at most, and train it alone.

    So are the options of a question where each is a single token.
    """
    groups: dict[Any, list[int]] = {}
    for index, row in enumerate(rows):
        single = row.positions == [len(row.ids) - 1]
        groups.setdefault(tuple(row.ids[:-1]) if single else index, []).append(index)
    return list(groups.values())


def _batch_losses(model: PreTrainedModel, groups: list[list[Encoded]]) -> list[list[float]]:
    """The losses of groups of rows that differ in their last token at most."""
    import torch
    from torch.nn.functional import cross_entropy

    firsts = [group[0] for group in groups]
    ids, mask = _pad([row.ids for row in firsts], 0, left=False, device=model.device)
    # The logits at a position predict the token after it.
    predicting = torch.tensor(sorted({position - 1 for row in firsts for position in row.positions}), device=ids.device)
    with torch.inference_mode():
        logits = _logits(model, ids, mask, predicting)
        losses = []
        for group, row_logits in zip(groups, logits, strict=True):
            positions = group[0].positions
            places = torch.searchsorted(predicting, torch.tensor(positions, device=ids.device) - 1)
            wanted = row_logits[places].float()
            tokens = torch.tensor([[row.ids[position] for position in positions] for row in group], device=ids.device)
            losses.append([float(cross_entropy(wanted, own, reduction="sum")) for own in tokens])
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


def answers_of(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    *,
    max_new_tokens: int,
    batch_size: int,
    label: str,
    progress: Progress,
    temperature: float = 0.0,
    seeds: Sequence[int] = (),
) -> list[Answer]:
    """The model's continuation of each question, in the order of `questions`.

    It is the most likely one, token by token; at a temperature above 0 it is drawn by the question's own seed. An
    answer ends where the model's context does, and a question that fills it has none.
    """
    stops = stop_ids(model, tokenizer)
    pad = pad_id(tokenizer, stops)
    asked = [encode_question(question, tokenizer) for question in questions]
    context = context_of(model)
    answers = [Answer("", False, [], f"its {len(ids)} tokens fill the context of {context}") for ids in asked]
    done = 0
    for batch, room in _batches([len(ids) for ids in asked], batch_size, max_new_tokens, context):
        ids, mask = _pad([asked[index] for index in batch], pad, left=True, device=model.device)
        inputs = {"input_ids": ids, "attention_mask": mask}
        if temperature:
            own = [seeds[index] for index in batch]
            output = sampled(
                model, inputs, max_new_tokens=room, stops=stops, pad=pad, temperature=temperature, seeds=own
            )
        else:
            output = greedy(model, inputs, max_new_tokens=room, stops=stops, pad=pad)
        for index, new in zip(batch, output.tolist(), strict=True):
            answers[index] = _answer(tokenizer, new, stops)
        done += len(batch)
        progress(label, done, len(questions))
    return answers


def _batches(
    lengths: Sequence[int], batch_size: int, max_new_tokens: int, context: float
) -> Iterator[tuple[list[int], int]]:
    """Indices in batches, and the tokens that each may answer with; those that fill the context are in none.

    A question after which the context has no room for a whole answer is asked alone, so that it takes none from others.
    """
    whole = [index for index, length in enumerate(lengths) if length + max_new_tokens <= context]
    for batch in _by_length([lengths[index] for index in whole], batch_size, PROMPT_BUDGET):
        yield [whole[place] for place in batch], max_new_tokens
    for index, length in enumerate(lengths):
        if length < context < length + max_new_tokens:
            yield [index], int(context) - length


def context_of(model: PreTrainedModel) -> float:
    """Tokens that the model's positions go up to; infinite where nothing bounds them."""
    bound = getattr(_whole(model).config.get_text_config(), "max_position_embeddings", None)
    return bound if isinstance(bound, int) and bound > 0 else math.inf


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

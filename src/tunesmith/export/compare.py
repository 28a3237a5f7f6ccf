"""Next-token distributions of a model, how far apart two are, and where greedy answers end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..models.generate import greedy
from .probes import Row

if TYPE_CHECKING:
    from torch import Tensor

LIMITS: Final[dict[str, Any]] = json.loads(Path(__file__).with_name("limits.json").read_text(encoding="utf-8"))
"""By what is compared: largest KL divergence, least agreement of best tokens, and what of it counts as a tie (nats)."""

LONGEST_ANSWER: Final = 256
LONGEST_PROMPT: Final = 1024
DECIDED: Final = 0.6
"""Probability of EOS from which on a stop is no near tie that rounding the weights may tip."""
_NOISE: Final = 1e-6
"""Probability below which the sum of many float32 numbers says nothing."""


def distributions(model: Any, rows: Sequence[Row]) -> Tensor:
    """Log-probabilities of the next token, float32 [positions of all rows, vocabulary]."""
    import torch

    model.eval()
    found = []
    with torch.inference_mode():
        for row in rows:
            logits = model(input_ids=torch.tensor([row.whole])).logits[0]
            found.append(torch.log_softmax(logits[[end - 1 for end in row.ends]].float(), dim=-1))
    return torch.cat(found)


def divergence(reference: Tensor, other: Tensor) -> float:
    """Mean over positions of KL(reference || other) = sum p (log p - log q), in nats; both are log-probabilities."""
    exact = reference.double()
    return float((exact.exp() * (exact - other.double())).sum(dim=-1).mean().clamp(min=0))


def divergence_from_best(reference: Tensor, best: dict[int, float]) -> float:
    """KL(reference || other) at one position, in nats, where of the other only the best tokens are known.

    All tokens that aren't listed are taken together, which can only make the divergence smaller.

    Args:
        reference: Log-probabilities over the vocabulary.
        best: Token id -> log-probability.
    """
    import torch

    p = reference[list(best)].double()
    q = torch.tensor(list(best.values()), dtype=torch.float64)
    p_rest, q_rest = ((1 - x.exp().sum()).clamp(min=_NOISE) for x in (p, q))
    return float((p.exp() * (p - q)).sum() + p_rest * (p_rest / q_rest).log())


def agrees_on_best(reference: Tensor, best: dict[int, float], tie: float) -> bool:
    """Whether the other's most likely token is the reference's too, or within `tie` nats of it.

    Two tokens that are equally likely change places by rounding alone; that says nothing of the file.

    Args:
        reference: Log-probabilities over the vocabulary.
        best: Token id -> log-probability, best first.
        tie: Largest difference of log-probabilities that counts as equal.
    """
    return bool(reference.max() - reference[next(iter(best))] <= tie)


def stop_tokens(model: Any) -> list[int]:
    """Ids at which the model's generation ends, as its generation_config says."""
    ids = model.generation_config.eos_token_id
    return [] if ids is None else [ids] if isinstance(ids, int) else list(ids)


def greedy_stops(model: Any, rows: Sequence[Row]) -> list[list[int]]:
    """Where the model's greedy answers end by themselves: the tokens of prompt and answer before each decided EOS."""
    import torch

    ends = stop_tokens(model)
    rows = [row for row in rows if len(row.prompt) <= LONGEST_PROMPT]
    if not rows or not ends:
        return []
    found = []
    for row, answer in zip(rows, _answers(model, rows, ends), strict=True):
        stop = next((place for place, token in enumerate(answer) if token in ends), None)
        if stop is None:
            continue
        prefix = row.prompt + answer[:stop]
        with torch.inference_mode():
            probabilities = torch.softmax(model(input_ids=torch.tensor([prefix])).logits[0, -1].float(), dim=-1)
        if probabilities[ends].max() >= DECIDED:
            found.append(prefix)
    return found


def _answers(model: Any, rows: Sequence[Row], ends: list[int]) -> list[list[int]]:
    """Greedy answers to the rows' prompts, filled up with the first of `ends`."""
    import torch

    width = max(len(row.prompt) for row in rows)
    ids = torch.tensor([[ends[0]] * (width - len(row.prompt)) + row.prompt for row in rows])
    mask = torch.tensor([[0] * (width - len(row.prompt)) + [1] * len(row.prompt) for row in rows])
    longest = min(LONGEST_ANSWER, 2 * max(row.answer_tokens for row in rows) + 8)
    inputs = {"input_ids": ids, "attention_mask": mask}
    answers: list[list[int]] = greedy(model, inputs, max_new_tokens=longest, stops=ends, pad=ends[0]).tolist()
    return answers

"""Tokens that are added to a model: rows at the end of its embedding, and of its output head."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..records import ModelFacts

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def widened(facts: ModelFacts, rows: int) -> ModelFacts:
    """The facts of a model whose embedding has `rows` rows; a model that has as many already stays as it is."""
    more = rows - facts.vocabulary
    if more <= 0:
        return facts
    values = more * facts.hidden
    parts = facts.parts
    parts = parts.model_copy(
        update={"embedding": parts.embedding + values, "head": parts.head + (0 if facts.tied else values)}
    )
    added = values * (1 if facts.tied else 2)
    return facts.model_copy(
        update={
            "vocabulary": rows,
            "embeddings": rows,
            "parameters": facts.parameters + added,
            "active": facts.active + added,
            "parts": parts,
        }
    )


def widen(model: PreTrainedModel, rows: int) -> None:
    """Give a model's embedding and output head `rows` rows; new ones are the mean of the old.

    The mean makes a new token as likely as others are on average, where zeros or noise make it more likely than all of
    them (Hewitt 2021, "Initializing New Word Embeddings for Pretrained Language Models"). Unlike Transformers' own
    sampling about the mean it is the same each time, so that an adapter finds the base that it was trained on.
    """
    import torch

    old = model.get_input_embeddings().weight.shape[0]
    if rows <= old:
        return
    model.resize_token_embeddings(rows, mean_resizing=False)
    tables = [model.get_input_embeddings(), model.get_output_embeddings()]
    with torch.no_grad():
        for weight in {id(table.weight): table.weight for table in tables if table is not None}.values():
            weight[old:] = weight[:old].float().mean(dim=0).to(weight.dtype)

"""What a run starts from: the model with its earlier adapters, and the tokens that are added to it."""

from __future__ import annotations

from ..models.light import LightTokenizer
from ..models.tokens import widened
from ..recipe.adapter import Adapter
from ..records import ModelFacts
from .rows import Tokenizer


def starting_model(adapter: Adapter, facts: ModelFacts, tokenizer: Tokenizer) -> ModelFacts:
    """The model's facts as the run starts from it.

    Its embedding is widened where the tokenizer has added tokens that it has no row for; without the model's tokenizer
    all of them are taken for new.
    """
    continues = bool(facts.earlier) and adapter.earlier == "continue"
    if isinstance(tokenizer, LightTokenizer):
        ids = tokenizer.ids_of(adapter.tokens)
    else:
        ids = {token: facts.vocabulary + place for place, token in enumerate(adapter.tokens)}
    known = facts.model_copy(update={"continues": continues, "tokens": ids})
    return widened(known, max(ids.values(), default=-1) + 1)

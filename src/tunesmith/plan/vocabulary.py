"""The rules on tokens that the model doesn't have, or has and never learnt."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from ..models.light import LightTokenizer
from ..recipe import Recipe
from ..records import Finding, ModelFacts
from ..rules import finding
from .rows import Rows

_MARKER = re.compile(r"<\|[^<>|\s]{1,40}\|>|<\uff5c[^<>\s]{1,60}\uff5c>|<(?:start|end)_of_\w{1,20}>")
"""Turn markers as chat templates write them: ChatML and Llama, DeepSeek (with wide bars), Gemma."""
_SAMPLE = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


def check_vocabulary(recipe: Recipe, model: ModelFacts, tokenizer: LightTokenizer, rows: Rows) -> Iterator[Finding]:
    """P020 and P029 on the template's turn markers, P021 on tokens without an embedding, P055 on trained ones."""
    yield from _without_embedding(model, tokenizer, rows)
    trained = recipe.adapter.tokens
    if unused := [
        token for token in trained if token not in (tokenizer.template or "") and not _in_rows({token}, rows)
    ]:
        yield finding("P055", "adapter.tokens", tokens=", ".join(unused), count=len(unused))
    own = bool(recipe.chat_template) or model.kind == "base"
    if not own or not rows.needs_template:
        return
    markers = [marker for marker in _markers(tokenizer) if marker not in tokenizer.named_tokens()]
    absent = [marker for marker in markers if not tokenizer.has_token(marker)]
    there = [marker for marker in markers if marker not in absent]
    if absent:
        yield finding("P020", "chat template", model=model.name, markers=", ".join(absent))
    there = [marker for marker in there if marker not in trained]
    if there and model.kind == "base" and recipe.adapter.kind != "none":
        yield finding("P029", "chat template", model=model.name, markers=", ".join(there))


def _markers(tokenizer: LightTokenizer) -> list[str]:
    """The turn markers around a question and its answer."""
    if tokenizer.template is None:
        return []
    try:
        text = tokenizer.render(_SAMPLE)
    except Exception:  # Jinja hands on whatever the template's expressions raise; T008 tells
        return []
    return list(dict.fromkeys(_MARKER.findall(text)))


def _without_embedding(model: ModelFacts, tokenizer: LightTokenizer, rows: Rows) -> Iterator[Finding]:
    beyond = tokenizer.beyond(model.vocabulary) if model.vocabulary else {}
    if not beyond:
        return
    # Some models carry tokens of other inputs, images for example, that text never has: those do no harm.
    used = [token for token in beyond if token in tokenizer.named_tokens() or token in (tokenizer.template or "")]
    used = used or _in_rows(set(beyond), rows)
    if used:
        token = min(used, key=beyond.__getitem__)
        yield finding("P021", "tokenizer", token=token, id=beyond[token], rows=model.vocabulary)


def _in_rows(tokens: set[str], rows: Rows) -> list[str]:
    """Those of some tokens that stand in a row's text."""
    pattern = re.compile("|".join(re.escape(token) for token in sorted(tokens, key=len, reverse=True)))
    found = (pattern.search(json.dumps(row, ensure_ascii=False)) for row in (*rows.train, *rows.eval, *rows.test))
    return next(([match[0]] for match in found if match), [])

"""The rows of a run: read, mapped, split and measured, held in memory until the run folder takes them."""

from __future__ import annotations

import functools
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ..data.lengths import packed_lengths
from ..data.prepare import Prepared, is_conversational, one_answer_a_row, prepare
from ..data.refused import without_long_prompts, without_refused
from ..data.rendered import rendered_findings
from ..data.rows import without_columns
from ..data.sources import read
from ..data.split import held_out, split_findings
from ..data.tokens import lengths_from, refusal_finding, refused_rows
from ..models.estimated import EstimatedTokenizer
from ..models.light import LightTokenizer
from ..recipe.rewards import is_function
from ..recipe.schema import Recipe, Source
from ..records import Finding, LossOn, Split, TokenLengths, TrainedLayout
from ..rules import FindingsError, finding, refuse_errors

Row = dict[str, Any]
Tokenizer = LightTokenizer | EstimatedTokenizer
UNKNOWN_CONTEXT = 1024
"""Tokens that a model is given at most when it doesn't say what it takes; TRL's default."""
GENERATING: Final = ("grpo", "rloo")
"""Methods that learn from the model's own answers."""
_ANSWERED: Final = ("sft", "dpo", "kto", *GENERATING)
"""Methods that cut rows at their end, or generate one: a prompt that fills the row leaves nothing to learn."""
_LOOKED_AT = 200  # how a template treats prompts hardly depends on the row


@dataclass(frozen=True)
class Rows:
    """Prepared rows of all splits, all in one layout.

    Attributes:
        token_counts: Tokens of each training row under the model's template.
        token_error: Their relative error, where they are estimated; 0 where they are counted.
        answer_tokens: Tokens of the longest right answer that prompts bring along; 0 without any.
    """

    layout: TrainedLayout
    loss_on: LossOn
    train: list[Row]
    eval: list[Row]
    test: list[Row]
    lengths: TokenLengths
    token_counts: list[int]
    token_error: float = 0.0
    answer_tokens: int = 0
    findings: list[Finding] = field(default_factory=list)
    _packed: dict[tuple[int, bool], int] = field(default_factory=dict, init=False, repr=False, compare=False)

    @functools.cached_property
    def images(self) -> bool:
        """Whether rows have images that the model is shown."""
        return any("images" in row for row in self.train)

    @property
    def compared(self) -> list[Row]:
        """The rows that the result is compared with its base on; none of images, which only training sees."""
        return [] if self.images else self.test or self.eval

    @functools.cached_property
    def by_length(self) -> Counter[int]:
        """Tokens -> training rows that have so many."""
        return Counter(self.token_counts)

    def packed(self, length: int, *, split: bool = False) -> int:
        """Rows of at most so many tokens that packing makes of the training rows (data/lengths.py)."""
        import numpy as np

        key = (length, split)
        if key not in self._packed:
            self._packed[key] = len(packed_lengths(np.array(self.token_counts), length, split=split))
        return self._packed[key]

    @property
    def needs_template(self) -> bool:
        """Whether the rows are made of messages, which only a chat template can render."""
        return is_conversational(self.train[0])

    def content(self, name: str) -> bytes:
        """A split as JSON Lines."""
        rows: list[Row] = getattr(self, name)
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()

    def split(self, name: str, *, max_length: int | None = None) -> Split:
        """The record of a split, with the fingerprint that its file will have; for train also its lengths."""
        counts = self.token_counts if name == "train" else []
        return Split(
            path=f"data/{name}.jsonl",
            rows=len(getattr(self, name)),
            sha256=hashlib.sha256(self.content(name)).hexdigest(),
            tokens=sum(min(count, max_length or count) for count in counts) or None,
            longest=max(counts, default=None),
            cut=sum(count > max_length for count in counts) if max_length else 0,
        )


def gather_rows(recipe: Recipe, tokenizer: Tokenizer, context: int | None = None, *, images: bool = False) -> Rows:
    """Read, map, split and measure the rows of a recipe.

    Args:
        recipe: The recipe.
        tokenizer: Of the model.
        context: What the model takes at most, in tokens; 0 where it doesn't say; None: rows may have any length.
        images: The model takes images.

    Raises:
        UsageError: a file isn't there, or the files' layouts differ.
        FindingsError: rows that can't be trained on.
    """
    from ..data.quality import near_leaks

    reader = _Reader(recipe, tokenizer, context, images=images and recipe.method == "sft")
    whole = reader.read(recipe.data.train)
    findings = list(whole.prepared.findings)
    aside, tested = _set_aside(whole.rows, recipe)
    train, prompts, totals = whole.without(aside | tested)
    train = [without_columns(row) for row in train]
    held = [whole.rows[index] for index in sorted(aside)]
    test = [whole.rows[index] for index in sorted(tested)]
    if isinstance(recipe.data.eval, str):
        held = _other(recipe.data.eval, reader, whole, findings)
    if isinstance(recipe.data.test, str):
        test = _other(recipe.data.test, reader, whole, findings)
    findings += split_findings(train, test or held, "test" if test else "eval")
    if not any("images" in row for row in train):  # the same question on another image is no near duplicate
        findings += near_leaks(train, test or held, "test" if test else "eval")
    if tokenizer.eos is not None and tokenizer.pad == tokenizer.eos:
        findings.append(finding("T006", "tokenizer", token=tokenizer.eos))
    if isinstance(tokenizer, LightTokenizer) and not any("images" in row for row in train):
        findings += _changed_prompts(tokenizer, train[:_LOOKED_AT], whole.prepared)
        findings += rendered_findings(train, tokenizer, whole.name)
    return Rows(
        layout=whole.prepared.layout,
        loss_on=whole.prepared.loss_on,
        train=train,
        eval=held,
        test=test,
        lengths=lengths_from(totals, prompts),
        token_counts=totals,
        token_error=tokenizer.error,
        answer_tokens=_answer_tokens(train, tokenizer) if whole.prepared.layout == "prompt-only" else 0,
        findings=findings,
    )


def evaluated_columns(recipe: Recipe) -> Sequence[str] | None:
    """Columns that the evaluation reads beside what is trained on; None: all, as functions of the user's are given."""
    settings = recipe.evaluation
    if any(is_function(score.spelt) for score in settings.scores):
        return None
    references = ["reference"] if settings.scores else []
    return [*(name for name in (settings.group, settings.choices) if name), *references]


def _set_aside(rows: Sequence[Row], recipe: Recipe) -> tuple[set[int], set[int]]:
    """Rows for the loss during training and for the final comparison that are taken from the training rows."""
    parts = [0.0 if part is None or isinstance(part, str) else part for part in (recipe.data.eval, recipe.data.test)]
    aside = held_out(rows, parts[0], recipe.seed)
    left = [index for index in range(len(rows)) if index not in aside]
    tested = held_out([rows[index] for index in left], parts[1], recipe.seed)
    return aside, {left[index] for index in tested}


def _answer_tokens(rows: Sequence[Row], tokenizer: Tokenizer) -> int:
    answers = [
        answer if isinstance(answer, str) else max(answer, key=len) for row in rows if (answer := row.get("reference"))
    ]
    return max(tokenizer.encode_rows([{"text": text} for text in answers], "text")[1], default=0)


@dataclass(frozen=True)
class _Measured:
    """The prepared rows of one file, with their tokens.

    Attributes:
        name: The file's name, for findings.
        prepared: The rows.
        prompts: Tokens of each row's prompt; None where rows have no prompt.
        totals: Tokens of each row.
    """

    name: str
    prepared: Prepared
    prompts: list[int] | None
    totals: list[int]

    @property
    def rows(self) -> list[Row]:
        """The rows."""
        return self.prepared.rows

    def without(self, aside: set[int]) -> tuple[list[Row], list[int] | None, list[int]]:
        """Rows, tokens of prompts, and tokens of rows, without some of the rows, counted from 0."""
        kept = [index for index in range(len(self.rows)) if index not in aside]
        prompts = None if self.prompts is None else [self.prompts[index] for index in kept]
        return [self.rows[index] for index in kept], prompts, [self.totals[index] for index in kept]


@dataclass(frozen=True)
class _Reader:
    """Reads files as a recipe says, for one model."""

    recipe: Recipe
    tokenizer: Tokenizer
    context: int | None
    images: bool = False

    def read(self, data: str | list[Source], like: Prepared | None = None) -> _Measured:
        """The rows of some data that the model can take, in the layout of `like`."""
        recipe, tokenizer = self.recipe, self.tokenizer
        raw = read(data, seed=recipe.seed)
        prepared = prepare(
            raw,
            recipe.data.mapping,
            recipe.data.bad_rows,
            generation_marks=tokenizer.has_generation_marks,
            conversational=tokenizer.template is not None,
            like=like,
            method=recipe.method,
            filter=recipe.data.filter,
            columns=recipe.method in GENERATING,
            beside=evaluated_columns(recipe),
            images=self.images,
        )
        refuse_errors(prepared.findings)
        prepared = one_answer_a_row(prepared) if recipe.method == "kto" else prepared
        if recipe.data.bad_rows == "drop" and not _lacks_template(tokenizer, prepared.rows):
            prepared = without_refused(prepared, lambda row: tokenizer.encode_rows([row], prepared.layout), raw.name)
        prompts, totals = _tokens(tokenizer, prepared, raw.name)
        measured = _Measured(raw.name, prepared, prompts, totals)
        return self._with_room(measured) if recipe.method in _ANSWERED else measured

    def _with_room(self, measured: _Measured) -> _Measured:
        """Without the rows whose prompt leaves no room for an answer: TRL would drop them unannounced."""
        limit, within = self._room()
        prompts = measured.totals if measured.prepared.layout == "prompt-only" else measured.prompts or ()
        full = {row for row, tokens in enumerate(prompts) if limit is not None and tokens >= limit}
        if not full:
            return measured
        _, left, totals = measured.without(full)
        kept = without_long_prompts(measured.prepared, full, within, measured.name)
        return _Measured(measured.name, kept, left, totals)

    def _room(self) -> tuple[int | None, str]:
        """The most tokens of a row, None without a limit; and in words what sets it."""
        own = self.recipe.training.get("max_length", self.context)
        if own is None:
            return None, ""
        if own != self.context:
            return own, f"max_length of {own:,} tokens"
        if own:
            return own, f"the model's context of {own:,} tokens"
        return UNKNOWN_CONTEXT, f"{UNKNOWN_CONTEXT:,} tokens, the limit where a model's context is unknown"


def _other(path: str, reader: _Reader, train: _Measured, findings: list[Finding]) -> list[Row]:
    measured = reader.read(path, like=train.prepared)
    findings += [found for found in measured.prepared.findings if found not in findings]
    return measured.rows


def _tokens(tokenizer: Tokenizer, prepared: Prepared, name: str) -> tuple[list[int] | None, list[int]]:
    """Tokens of prompts and rows of the data `name`."""
    rows = prepared.rows
    if _lacks_template(tokenizer, rows):
        # The plan says T005; lengths without turn markers are near enough until then.
        texts = [{"text": json.dumps(row, ensure_ascii=False)} for row in rows]
        return tokenizer.encode_rows(texts, "text")
    try:
        return tokenizer.encode_rows(rows, prepared.layout)
    except Exception:  # Jinja hands on whatever the template's expressions raise
        refused = refused_rows(rows, lambda row: tokenizer.encode_rows([row], prepared.layout))
        if not refused:
            raise
        found = refusal_finding(refused, prepared.places)
        raise FindingsError([found.model_copy(update={"where": name})]) from None


def _changed_prompts(tokenizer: LightTokenizer, rows: Sequence[Row], prepared: Prepared) -> list[Finding]:
    if prepared.layout != "prompt-completion" or not is_conversational(rows[0]) or tokenizer.template is None:
        return []
    changed = tokenizer.changed_prompts(rows)
    return [finding("T010", "chat template", count=changed, total=len(rows))] if changed else []


def _lacks_template(tokenizer: Tokenizer, rows: Sequence[Row]) -> bool:
    return tokenizer.template is None and bool(rows) and is_conversational(rows[0])

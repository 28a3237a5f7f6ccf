"""The rows of a run: read, mapped, split and measured, held in memory until the run folder takes them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..data.prepare import Prepared, is_conversational, prepare
from ..data.refused import without_refused
from ..data.rendered import rendered_findings
from ..data.sources import read
from ..data.split import split, split_findings
from ..data.tokens import lengths_from, refusal_finding, refused_rows
from ..models.light import LightTokenizer
from ..recipe.schema import Recipe
from ..records import Finding, Split, TokenLengths
from ..rules import FindingsError, finding, refuse_errors

Row = dict[str, Any]
_LOOKED_AT = 200  # how a template treats prompts hardly depends on the row


@dataclass(frozen=True)
class Rows:
    """Prepared rows of all splits, all in one layout.

    Attributes:
        token_counts: Tokens of each training row under the model's template.
        prompt_counts: Tokens of each training row's prompt; none where rows have no prompt.
    """

    layout: Literal["messages", "prompt-completion", "text"]
    loss_on: Literal["completion", "assistant", "all"]
    train: list[Row]
    eval: list[Row]
    test: list[Row]
    lengths: TokenLengths
    token_counts: list[int]
    prompt_counts: list[int]
    findings: list[Finding] = field(default_factory=list)

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


def gather_rows(recipe: Recipe, tokenizer: LightTokenizer) -> Rows:
    """Read, map, split and measure the rows of a recipe.

    Raises:
        UsageError: a file isn't there, or the files' layouts differ.
        FindingsError: rows that can't be trained on.
    """
    name = recipe.data.train[0].path
    train_file = _prepare(name, recipe, tokenizer)
    findings = list(train_file.findings)
    held_out: Sequence[Row]
    if isinstance(recipe.data.eval, str):
        train, held_out = train_file.rows, _other(recipe.data.eval, recipe, tokenizer, train_file, findings)
    else:
        train, held_out = split(train_file.rows, recipe.data.eval, recipe.seed)
        _measure(tokenizer, held_out, train_file, name)
    test = _other(recipe.data.test, recipe, tokenizer, train_file, findings) if recipe.data.test else []
    findings += split_findings(train, test or held_out, "test" if test else "eval")
    if tokenizer.eos is not None and tokenizer.pad == tokenizer.eos:
        findings.append(finding("T006", "tokenizer", token=tokenizer.eos))
    prompts, totals = _measure(tokenizer, train, train_file, name)
    findings += _changed_prompts(tokenizer, train[:_LOOKED_AT], train_file)
    findings += rendered_findings(train, tokenizer, Path(name).name)
    return Rows(
        layout=train_file.layout,
        loss_on=train_file.loss_on,
        train=list(train),
        eval=list(held_out),
        test=list(test),
        lengths=lengths_from(totals, prompts),
        token_counts=totals,
        prompt_counts=prompts or [],
        findings=findings,
    )


def _prepare(path: str, recipe: Recipe, tokenizer: LightTokenizer, like: Prepared | None = None) -> Prepared:
    prepared = prepare(
        read(Path(path)),
        recipe.data.mapping,
        recipe.data.bad_rows,
        generation_marks=tokenizer.has_generation_marks,
        conversational=tokenizer.template is not None,
        like=like,
    )
    refuse_errors(prepared.findings)
    if recipe.data.bad_rows == "drop" and not _lacks_template(tokenizer, prepared.rows):
        return without_refused(prepared, lambda row: tokenizer.encode_rows([row], prepared.layout), Path(path).name)
    return prepared


def _other(path: str, recipe: Recipe, tokenizer: LightTokenizer, train: Prepared, findings: list[Finding]) -> list[Row]:
    prepared = _prepare(path, recipe, tokenizer, like=train)
    findings += [found for found in prepared.findings if found not in findings]
    _measure(tokenizer, prepared.rows, prepared, path)
    return prepared.rows


def _measure(
    tokenizer: LightTokenizer, rows: Sequence[Row], prepared: Prepared, path: str
) -> tuple[list[int] | None, list[int]]:
    """Token counts of `rows`, which are among the `prepared` ones of the file `path`."""
    if _lacks_template(tokenizer, rows):
        # The plan says T005; lengths without turn markers are near enough until then.
        texts = [{"text": json.dumps(row, ensure_ascii=False)} for row in rows]
        return tokenizer.encode_rows(texts, "text")
    try:
        return tokenizer.encode_rows(rows, prepared.layout)
    except Exception:  # Jinja hands on whatever the template's expressions raise
        refused = _refused(tokenizer, prepared)
        if not refused:
            raise
        found = refusal_finding(refused, prepared.places)
        raise FindingsError([found.model_copy(update={"where": Path(path).name})]) from None


def _changed_prompts(tokenizer: LightTokenizer, rows: Sequence[Row], prepared: Prepared) -> list[Finding]:
    if prepared.layout != "prompt-completion" or not is_conversational(rows[0]) or tokenizer.template is None:
        return []
    changed = tokenizer.changed_prompts(rows)
    return [finding("T010", "chat template", count=changed, total=len(rows))] if changed else []


def _lacks_template(tokenizer: LightTokenizer, rows: Sequence[Row]) -> bool:
    return tokenizer.template is None and bool(rows) and is_conversational(rows[0])


def _refused(tokenizer: LightTokenizer, prepared: Prepared) -> dict[int, str]:
    return refused_rows(prepared.rows, lambda row: tokenizer.encode_rows([row], prepared.layout))

"""Holding rows out for evaluation, so that equal prompts never stand on both sides."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence

from ..records import Finding
from ..rules import finding
from ..words import counted
from .rows import Row

_FEW_ROWS = 100
_LEAST_DISCORDANT = 6
"""McNemar's exact test needs six rows that all changed the same way for p < 0.05: 2 * 0.5 ** 6 = 0.031."""


def prompt_of(row: Row) -> str:
    """What a prepared row gives before the last answer, with its images, as one text; for plain text the whole."""
    if "text" in row:
        return str(row["text"])
    prompt = row["messages"][:-1] if "messages" in row else row["prompt"]
    if row.get("images"):
        prompt = [*row["images"], *prompt]
    return prompt if isinstance(prompt, str) else json.dumps(prompt, sort_keys=True, ensure_ascii=False)


def held_out(rows: Sequence[Row], fraction: float, seed: int, most: int = 500) -> set[int]:
    """The rows to hold out, counted from 0: about `fraction` of them, at most `most`, at least one.

    Which prompts are held out depends on the prompts and the seed alone, not on the order of the rows. Equal prompts
    stay on one side; so nothing is held out when all prompts are equal.
    """
    groups: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(prompt_of(row), []).append(index)
    if fraction <= 0 or len(groups) < 2:
        return set()
    wanted = min(max(1, round(fraction * len(rows))), most, len(rows) - 1)
    held: set[int] = set()
    in_order = sorted(groups, key=lambda prompt: _rank(prompt, seed))
    for prompt in in_order:
        if len(held) + len(groups[prompt]) <= wanted:
            held.update(groups[prompt])
    if not held:
        # Every prompt is repeated more often than rows are wanted; the rarest one is the closest to it.
        held.update(groups[min(in_order, key=lambda prompt: len(groups[prompt]))])
    return held


def _rank(prompt: str, seed: int) -> bytes:
    return hashlib.blake2b(prompt.encode(), digest_size=16, salt=seed.to_bytes(16, "little", signed=False)).digest()


def overlap(train: Sequence[Row], held_out: Sequence[Row]) -> int:
    """Number of rows held out whose prompt also stands in `train`."""
    prompts = {prompt_of(row) for row in train}
    return sum(prompt_of(row) in prompts for row in held_out)


def split_findings(train: Sequence[Row], held_out: Sequence[Row], name: str) -> list[Finding]:
    """D010 for prompts on both sides, D011 for few rows; `name` is the held-out side's: eval or test."""
    if not held_out:
        return []
    findings = []
    shared = overlap(train, held_out)
    if shared:
        findings.append(finding("D010", name, count=f"{shared:,}", total=f"{len(held_out):,}", split=name))
    return findings + few_rows(len(held_out), name)


def few_rows(rows: int, name: str) -> list[Finding]:
    """D011 where only few rows are held out."""
    if rows >= _FEW_ROWS:
        return []
    held = f"Only {counted(rows, 'row')} {'is' if rows == 1 else 'are'}" if rows else "No rows are"
    if rows < _LEAST_DISCORDANT:
        return [finding("D011", name, held=held, seen="no difference can be shown")]
    resolution = math.ceil(100 * _LEAST_DISCORDANT / rows)
    return [finding("D011", name, held=held, seen=f"differences under about {resolution} points can't be seen")]

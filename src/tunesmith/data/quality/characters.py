"""What texts are made of: wrongly decoded characters, placeholders, a template's markup, languages."""

from __future__ import annotations

import functools
import re
from collections import Counter
from typing import TYPE_CHECKING

from ...records import Severity
from ...rules import finding
from .patterns import patterns
from .private import hidden
from .texts import sample
from .view import Outcome, View, quoted

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

_BROKEN_SAMPLE, _BROKEN_SEEN = 5_000, 2_000
_LANGUAGE_SAMPLE, _LANGUAGE_SEEN = 2_000, 500
_LANGUAGE_LEAST = 60
_SURE = 0.8
_STRAY_SHARE, _STRAY_ROWS = 0.02, 5
_LANGUAGES_NAMED = 5
_CODE = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)


def mojibake(text: str) -> str | None:
    """The place, in the first 2,000 characters, with what ftfy can decode again, or with U+FFFD (lost characters)."""
    from ftfy import fix_encoding
    from ftfy.badness import BADNESS_RE

    if text.isascii():
        return None
    seen = text[:_BROKEN_SEEN]
    match = BADNESS_RE.search(seen)
    if match is None or fix_encoding(seen) == seen:
        match = re.search("\ufffd", seen)
    if match is None:
        return None
    # Context could be a part of something private, which can't be told from a part.
    context = 20 if hidden(seen) == seen else 0
    return seen[max(0, match.start() - context) : match.end() + context]


def placeholder(text: str, kind: str) -> str | None:
    """The first text that somebody meant to replace: a "strict" one, or a "loose" one, wanted in letters.

    Code blocks don't count.
    """
    pattern = patterns().placeholders[kind]
    if not pattern.search(text):
        return None
    match = pattern.search(_CODE.sub("", text))
    return match[0] if match else None


def language(text: str, least: int = _LANGUAGE_LEAST, sure: float = _SURE) -> str | None:
    """The language (ISO 639-1) of a text's beginning; None where it can't be told: too short, code, or numbers.

    Args:
        text: What is written in it.
        least: Letters that it must have.
        sure: How likely the language must be, from 0 to 1.
    """
    words = _CODE.sub(" ", text[: 4 * _LANGUAGE_SEEN])[:_LANGUAGE_SEEN]
    if sum(map(str.isalpha, words)) < max(least, len(words) // 2):
        return None
    found, confidence = _identifier().classify(words)
    return str(found) if confidence >= sure else None


@functools.cache
def _identifier() -> LanguageIdentifier:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def check_characters(view: View) -> Outcome:
    """D031 for wrongly decoded characters, in 5,000 of the rows that aren't plain ASCII."""
    foreign = [number for number, row in enumerate(view.rows) if not row.whole.isascii()]
    chosen = [foreign[at] for at in sample(len(foreign), _BROKEN_SAMPLE)]
    broken = {number: part for number in chosen if (part := mojibake(view.rows[number].whole))}
    looked_at = len(view.rows) - len(foreign) + len(chosen)
    found = Outcome({"mojibake": len(broken)})
    if looked_at < len(view.rows):
        found.figures["sampled"] = {"mojibake": looked_at}
    if broken:
        example = quoted(next(iter(broken.values())))
        found.findings.append(finding("D031", view.where, example=example, **view.named(broken, looked_at)))
    return found


def check_placeholders(view: View) -> Outcome:
    """D032 for text that should have been replaced: a note where it is such as letters have, "[Your Name]"."""
    suspects = view.matching(patterns().first_looks["placeholders"])
    strict, loose = (
        {number: part for number in suspects if (part := placeholder(view.rows[number].whole, kind))}
        for kind in ("strict", "loose")
    )
    found = Outcome({"placeholders": len(strict | loose)})
    kinds: list[tuple[dict[int, str], Severity]] = [(strict, "warning"), (loose, "note")]
    for some, bad in kinds:
        if some:
            example = quoted(next(iter(some.values())))
            found.findings.append(finding("D032", view.where, severity=bad, example=example, **view.named(some)))
    return found


def check_markup(view: View) -> Outcome:
    """D049 for what a chat template writes around turns, standing in texts."""
    pattern = patterns().markup
    suspects = ((number, pattern.search(view.rows[number].whole)) for number in view.matching(pattern.pattern))
    struck = {number: match[0] for number, match in suspects if match}
    found = Outcome({"template_markup": len(struck)})
    if struck:
        example = quoted(next(iter(struck.values())))
        found.findings.append(finding("D049", view.where, example=example, **view.named(struck)))
    return found


def check_languages(view: View) -> Outcome:
    """D033 where a language besides the main one has 2% of 2,000 rows looked at, and five of them."""
    chosen = [view.rows[at] for at in sample(len(view.rows), _LANGUAGE_SAMPLE)]
    named = (language(row.taught[-1] if row.taught else row.prompt) for row in chosen)
    told = Counter(name for name in named if name)
    found = Outcome({"languages": dict(told.most_common())})
    if len(chosen) < len(view.rows):
        found.figures["sampled"] = {"languages": len(chosen)}
    total = told.total()
    stray = [name for name, rows in told.most_common()[1:] if rows >= max(_STRAY_ROWS, _STRAY_SHARE * total)]
    if stray:
        most = ", ".join(f"{name} {rows:,}" for name, rows in told.most_common(_LANGUAGES_NAMED))
        found.findings.append(finding("D033", view.where, found=most, total=f"{total:,}"))
    return found

"""Checks of whether an answer does what it was told to, by names as instructions.yaml has them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from ...data.quality.characters import language

_FENCED: Final = re.compile(r"```\w*\n(.*?)\n?```", re.DOTALL)
_NUMBER: Final = re.compile(r"^[ \t*_]*([0-9]{1,3})\.(?![0-9])", re.MULTILINE)
_SENTENCE_ENDS: Final = re.compile(r"[.!?\u2026][\"'\u201d\u2019)*]*\s+(?![a-z])")
_AROUND: Final = " .!\u00a1\"'\u2018\u2019\u201c\u201d\u201e\u00ab\u00bb"
"""What may stand around an answer of one word: full stops, exclamation marks, quotation marks."""
_LANGUAGE_LEAST, _LANGUAGE_SURE = 15, 0.5
"""Letters of two short sentences, and how sure one must be of their language where the one asked for is known."""


def follows(answer: str, checks: Mapping[str, Any]) -> bool:
    """Whether an answer passes every check; an empty one passes none.

    Args:
        answer: What the model said, without its reasoning.
        checks: Name of a check -> its argument.
    """
    said = unicodedata.normalize("NFC", answer).strip()
    return bool(said) and all(CHECKS[name](said, argument) for name, argument in checks.items())


def _words(text: str) -> list[str]:
    return re.findall(r"\w+(?:['\u2019-]\w+)*", text)


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _length(text: str, bounds: Sequence[int | None]) -> bool:
    least, most = bounds
    count = len(_words(text))
    return (least or 0) <= count and (most is None or count <= most)


def _paragraphs(text: str, count: int) -> bool:
    return len(re.split(r"\n\s*\n", text)) == count


def _sentences(text: str, bounds: Sequence[int]) -> bool:
    least, most = bounds
    return least <= sum(bool(_words(part)) for part in _SENTENCE_ENDS.split(text)) <= most


def _bullets(text: str, counts: Mapping[str, int]) -> bool:
    return all(
        sum(line.startswith(mark) and bool(_words(line[len(mark) :])) for line in _lines(text)) == count
        for mark, count in counts.items()
    )


def _numbered(text: str, count: int) -> bool:
    _, *parts = _NUMBER.split(text)
    numbers, steps = [int(number) for number in parts[::2]], parts[1::2]
    return numbers == list(range(1, count + 1)) and all(_words(step) for step in steps)


def _separated(text: str, count: int) -> bool:
    parts = [" ".join(_words(part)).casefold() for part in text.split(",")]
    return len(_lines(text)) == 1 and ":" not in text and all(parts) and len(set(parts)) == len(parts) == count


def _count(text: str, word: str) -> int:
    return [found.casefold() for found in _words(text)].count(word.casefold())


def _case(text: str, case: str) -> bool:
    return text.isupper() if case == "upper" else text.islower()


def _starts(text: str, beginning: str) -> bool:
    return re.match(re.escape(beginning) + r"(?!\w)", _spaced(text)) is not None


def _ends(text: str, ending: str) -> bool:
    return re.search(r"(?<!\w)" + re.escape(ending) + r"\Z", _spaced(text)) is not None


def _spaced(text: str) -> str:
    return " ".join(text.split())


def _json(text: str, schema: dict[str, Any]) -> bool:
    from ...rewards.answer import Answer
    from ...rewards.form import JsonSchema

    fenced = _FENCED.fullmatch(text)
    return JsonSchema(schema=schema).score(Answer(fenced[1] if fenced else text, (), {})) == 1


CHECKS: Final[Mapping[str, Callable[[str, Any], bool]]] = {
    "words": _length,
    "lines": lambda text, count: len(_lines(text)) == count,
    "paragraphs": _paragraphs,
    "sentences": _sentences,
    "bullets": _bullets,
    "numbered": _numbered,
    "separated": _separated,
    "includes": lambda text, words: all(_count(text, word) for word in words),
    "lacks": lambda text, words: not any(_count(text, word) for word in words),
    "times": lambda text, words: all(_count(text, word) == count for word, count in words.items()),
    "lacks_letters": lambda text, letters: not set(letters) & set(text.lower()),
    "case": _case,
    "starts": _starts,
    "ends": _ends,
    "one_of": lambda text, options: text.strip(_AROUND).casefold() in [option.casefold() for option in options],
    "matches": lambda text, pattern: any(re.fullmatch(pattern, said) for said in (text, text.strip(_AROUND))),
    "json": _json,
    "language": lambda text, code: language(text, _LANGUAGE_LEAST, _LANGUAGE_SURE) == code,
}
"""Name -> whether a text that isn't empty passes, given the argument.

words, sentences: [least, most] of them; lines, paragraphs: exactly so many lines with something on them, blocks between
blank lines; bullets: how many lines begin so and say something; numbered: steps 1. to so many, whatever is before them;
separated: different parts between the commas of a single line; includes, lacks, times: whole words, in any case;
lacks_letters: none of these characters; case: of all letters; starts, ends: these words, whatever blanks are between
them; one_of, matches: the whole text, but for quotation marks, full stops and exclamation marks around it, in any case
(one_of) or exactly (matches, a regular expression); json: a JSON Schema, of a fenced block, too; language: an ISO 639-1
code, of 15 letters or more.
"""

"""Rewards of answers whose words are like the right answer's, each as the field defines it."""

from __future__ import annotations

import re
import string
import unicodedata
from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Final, Literal

from pydantic import ConfigDict, Field

from .answer import Answer
from .base import Compared, read_answers

_ARTICLES: Final = re.compile(r"\b(a|an|the)\b")
_UNSPACED: Final = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")
"""Beginnings of the Unicode names of characters of scripts that put no spaces between words."""


class NormalizedMatch(Compared):
    """1 where the answer is the right one but for case, punctuation, articles (a, an, the) and blanks, 0 elsewhere.

    The normalization of SQuAD (Rajpurkar et al. 2016, SQuAD: 100,000+ questions, section 6.1, and its official script),
    for the punctuation of all scripts.
    """

    share = True

    def compare(self, said: str, right: str) -> float:
        """1.0 or 0.0."""
        return float(_normalized(said) == _normalized(right))


class Contains(Compared):
    """1 where the right answer stands somewhere in the answer as whole words, 0 elsewhere."""

    share = True

    ignore_case: bool = Field(default=True, description="Take capital and small letters for the same")

    def compare(self, said: str, right: str) -> float | None:
        """1.0 or 0.0; None where the right answer is empty, which everything contains."""
        text, wanted = (_composed(part, fold=self.ignore_case).strip() for part in (said, right))
        if not wanted:
            return None
        found = re.finditer(f"(?={re.escape(wanted)})", text)
        return float(any(_stands_alone(text, one.start(), one.start() + len(wanted)) for one in found))


class TokenF1(Compared):
    """F1 of the answer's words against the right answer's, each word as often as it stands there; from 0 to 1.

    2PR / (P + R) over SQuAD's normalized words (Rajpurkar et al. 2016, section 6.1). In scripts without spaces each
    character is a word, as in MLQA (Lewis et al. 2020).
    """

    def compare(self, said: str, right: str) -> float:
        """From 0.0 to 1.0; where either has no words, both must have none."""
        given, wanted = (Counter(_spaced(_normalized(text)).split()) for text in (said, right))
        if not given or not wanted:
            return float(given == wanted)
        return 2 * (given & wanted).total() / (given.total() + wanted.total())


class RougeL(Compared):
    """ROUGE-L of the answer against the right one: F1 of their longest common sequence of words; from 0 to 1.

    Lin 2004, ROUGE: a package for automatic evaluation of summaries, by rouge-score. That package's own words are a-z
    and 0-9 alone, and no others are in Russian or Chinese; here they are letters and digits of any script.
    """

    model_config = ConfigDict(ignored_types=(cached_property,))

    @cached_property
    def _scorer(self) -> Any:
        from rouge_score.rouge_scorer import RougeScorer

        return RougeScorer(["rougeL"], tokenizer=_Words())

    def compare(self, said: str, right: str) -> float:
        """From 0.0 to 1.0."""
        return float(self._scorer.score(right, said)["rougeL"].fmeasure)


class _Words:
    """The words of a text, as rouge-score asks for them."""

    def tokenize(self, text: str) -> list[str]:
        """In small letters, without what is no letter, digit or mark on one."""
        kept = (char if unicodedata.category(char)[0] in "LNM" else " " for char in _composed(text).lower())
        return _spaced("".join(kept)).split()


class OfCorpus(Compared):
    """A reward that is, over many answers, no mean of theirs but one score of what they add up to."""

    model_config = ConfigDict(ignored_types=(cached_property,))

    @property
    @abstractmethod
    def metric(self) -> Any:
        """The metric of sacrebleu's."""

    def counts(self, answer: Answer) -> list[float] | None:
        """What an answer adds to the score; None where the row has no right answer."""
        right = self.right_answers(answer)
        said = self.said(answer) or ""
        # As sacrebleu's own significance tests take them: there is no public way to a segment's counts.
        return list(self.metric._extract_corpus_statistics([said], [[one] for one in right])[0]) if right else None

    def all_counts(self, **given: Any) -> list[list[float] | None]:
        """What each completion adds; `given` as a trainer passes it."""
        return [self.counts(answer) for answer in read_answers(**given)]

    @property
    def signature(self) -> str:
        """sacrebleu's, by which others can repeat the score; once answers were counted."""
        return str(self.metric.get_signature())

    def total(self, counts: Sequence[float]) -> float:
        """The score, from 0 to 100, of answers whose counts add up to these."""
        return float(self.metric._compute_score_from_stats(list(counts)).score)

    def score(self, answer: Answer) -> float | None:
        """The score of one answer alone, from 0.0 to 1.0; None where the row has no right answer."""
        right = self.right_answers(answer)
        return float(self.metric.sentence_score(self.said(answer) or "", right).score) / 100 if right else None

    def compare(self, said: str, right: str) -> float:
        """As `score`, for one right answer."""
        return float(self.metric.sentence_score(said, [right]).score) / 100


class Bleu(OfCorpus):
    """BLEU of the answer against the right ones, from 0 to 1; in an evaluation that of all answers, from 0 to 100.

    Papineni et al. 2002, BLEU: a method for automatic evaluation of machine translation, by sacrebleu (Post 2018). Only
    n-grams that the answers are long enough for count: else right answers of one word would have a BLEU of 0.
    """

    tokenize: Literal["13a", "intl", "zh", "char", "none"] = Field(
        default="13a", description="How sacrebleu takes texts apart: zh for Chinese, char for Japanese or Thai"
    )

    @cached_property
    def metric(self) -> Any:
        """sacrebleu's BLEU."""
        from sacrebleu.metrics.bleu import BLEU

        return BLEU(tokenize=self.tokenize, force=True, effective_order=True)


class Chrf(OfCorpus):
    """chrF of the answer against the right ones, from 0 to 1; in an evaluation that of all answers, from 0 to 100.

    F2 of n-grams of characters (Popović 2015, chrF: character n-gram F-score for automatic MT evaluation); sacrebleu's.
    """

    words: int = Field(default=0, ge=0, le=2, description="Longest n-grams of words that count too; 2 for chrF++")

    @cached_property
    def metric(self) -> Any:
        """sacrebleu's chrF."""
        from sacrebleu.metrics.chrf import CHRF

        return CHRF(word_order=self.words)


def _normalized(text: str) -> str:
    """SQuAD's normalization."""
    kept = "".join(char for char in _composed(text).lower() if not _is_punctuation(char))
    return " ".join(_ARTICLES.sub(" ", kept).split())


def _is_punctuation(char: str) -> bool:
    return char in string.punctuation or unicodedata.category(char).startswith("P")


def _spaced(text: str) -> str:
    """Text with blanks around each character of a script that has none between words."""
    if text.isascii():
        return text
    return "".join(f" {char} " if _is_unspaced(char) else char for char in text)


def _is_unspaced(char: str) -> bool:
    return not char.isascii() and unicodedata.name(char, "").startswith(_UNSPACED)


def _stands_alone(text: str, start: int, end: int) -> bool:
    """Whether what stands from `start` to `end` isn't a part of a longer word."""
    inside = zip((start, end - 1), (start - 1, end), strict=True)
    return not any(
        0 <= outer < len(text) and all(text[at].isalnum() and not _is_unspaced(text[at]) for at in (inner, outer))
        for inner, outer in inside
    )


def _composed(text: str, *, fold: bool = False) -> str:
    """One code point for what can be written as one or two; without case where asked for."""
    composed = unicodedata.normalize("NFC", text)
    return composed.casefold() if fold else composed

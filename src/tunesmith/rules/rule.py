"""What a rule is."""

from __future__ import annotations

from dataclasses import dataclass

from ..records import Severity


@dataclass(frozen=True)
class Rule:
    """A known way in which fine-tuning goes wrong.

    Attributes:
        code: Letter of the area and three digits.
        title: The rule as a short noun phrase.
        severity: How bad a finding of it is, unless the stage says otherwise.
        what: Text of a finding, a template over the finding's details as `words.Agreeing` reads it.
        why: Why it matters, one sentence.
        fix: What to do, a template of the same kind.
        source: Where it was met or measured.
    """

    code: str
    title: str
    severity: Severity
    what: str
    why: str
    fix: str
    source: str

"""The catalogue of known ways in which fine-tuning goes wrong: one code, one rule, one short file per letter."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from ..errors import TunesmithError, UsageError
from ..records import Finding, Severity
from ..words import Agreeing
from . import adapter, conversations, data, evaluation, export, hub, method, model, plan, quality, run, running, tokens
from .rule import Rule

_LETTERS = (
    [*data.RULES, *quality.RULES],
    [*plan.RULES, *model.RULES, *adapter.RULES, *method.RULES, *running.RULES],
    [*evaluation.RULES, *conversations.RULES],
    *(letter.RULES for letter in (tokens, hub, run, export)),
)
_SENTENCES = Agreeing()
RULES: dict[str, Rule] = {rule.code: rule for rules in _LETTERS for rule in sorted(rules, key=lambda rule: rule.code)}


class FindingsError(TunesmithError):
    """A stage refuses to go on because of findings of severity error (exit code 1)."""

    def __init__(self, findings: Iterable[Finding]) -> None:
        self.findings = [finding for finding in findings if finding.severity == "error"]
        first = self.findings[0]
        more = f" (and {len(self.findings) - 1} more)" if len(self.findings) > 1 else ""
        super().__init__(f"{first.code} {first.where}: {first.what}{more}", why=RULES[first.code].why, fix=first.fix)


def finding(code: str, where: str, *, severity: Severity | None = None, **details: object) -> Finding:
    """Make the finding of rule `code`; `details` fill the rule's texts.

    Raises:
        KeyError: the code is not in the catalogue, or a detail that its texts name is missing.
    """
    rule = RULES[code]
    return Finding(
        code=code,
        severity=severity or rule.severity,
        where=where,
        what=_SENTENCES.format(rule.what, **details),
        fix=_SENTENCES.format(rule.fix, **details),
    )


def refuse_errors(findings: Iterable[Finding]) -> None:
    """Raise when any of `findings` is an error.

    Raises:
        FindingsError: at least one finding is of severity error.
    """
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        raise FindingsError(errors)


def look_up(code: str) -> Rule:
    """The rule of a code, whatever its case.

    Raises:
        UsageError: there is no such rule.
    """
    rule = RULES.get(code.upper())
    if rule is None:
        near = difflib.get_close_matches(code.upper(), RULES, n=1)
        raise UsageError(
            f"There is no rule {code}.",
            why="Codes are a letter (D, T, P, H, R, E, X) and three digits.",
            fix=f"Did you mean {near[0]}?" if near else "`tunesmith rule` lists them all.",
        )
    return rule


__all__ = ["RULES", "FindingsError", "Rule", "finding", "look_up", "refuse_errors"]

"""Each rule of letter T finds what it is for, and nothing on the clean twin."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.planted import Case, Count, count, table
from tests.support.planted_tokens import TOKEN_CASES, Row, row
from tests.support.templates import TEMPLATES, save_tokenizer, template_text
from tunesmith.data.rendered import rendered_findings
from tunesmith.models.light import LightTokenizer
from tunesmith.rules import RULES, finding

pytestmark = pytest.mark.slow  # importing the trainer alone takes 6 s


def test_each_planted_fault_is_found_and_no_clean_twin_accused(tmp_path: Path) -> None:
    counts = count(TOKEN_CASES, tmp_path)
    print(table(counts))
    assert {each.code: (each.planted, []) for each in counts} == {
        each.code: (each.found, each.false_alarms) for each in counts
    }
    assert {each.code for each in counts} == {code for code in RULES if code.startswith("T")}


def test_good_rows_are_good_under_each_template_of_trl(tmp_path: Path) -> None:
    """But for one: GLM-4.5's template ends an answer with the next turn only, so that no stop token is trained."""
    accused = {}
    for name in TEMPLATES:
        light = LightTokenizer(save_tokenizer(template_text(name), tmp_path / name))
        rows = [row("a lamp\n  and more", system=system) for system in ("Be brief.", "")]
        taken = [each for each in rows if takes(light, each)]
        findings = rendered_findings(taken, light, "rows")
        if findings:
            accused[name] = [finding.code for finding in findings]
    assert accused == {"glm4moe": ["T017"]}


def takes(light: LightTokenizer, given: Row) -> bool:
    """Whether a template takes texts as content and knows the system role; those of vision models want parts."""
    try:
        return "lamp" in light.render([*given["prompt"], *given["completion"]])
    except Exception:  # whatever Jinja raises
        return False


def test_what_is_missed_and_what_is_falsely_found_is_counted(tmp_path: Path) -> None:
    doubled = finding("T009", "x", model="m")
    cases = [
        Case("T009", "one", lambda _: [doubled], lambda _: []),
        Case("T009", "two", lambda _: [], lambda _: [doubled]),
    ]
    (found,) = count(cases, tmp_path)
    assert found == Count("T009", ["one", "two"], 2, 1, ["T009: m names no EOS token."])
    assert table([found]).splitlines()[2:] == [
        "| T009 No stop token is known | 2 | 1 | 1 | one; two |",
        "| all | 2 | 1 | 1 | |",
    ]

"""Each rule of letters D and T finds what it is for, and nothing is reported on the clean twins."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.planted import Case, Count, count, table
from tests.support.planted_page import HEAD, LETTERS, PAGE, cases_of, section
from tunesmith.rules import RULES, finding

SLOW = pytest.mark.slow  # importing the trainer alone takes 6 s


@pytest.mark.parametrize("letter", ["D", pytest.param("T", marks=SLOW)])
def test_each_planted_fault_is_found_and_no_clean_twin_accused(letter: str, tmp_path: Path) -> None:
    counts = count(cases_of(letter), tmp_path)
    assert {each.code: (each.planted, []) for each in counts} == {
        each.code: (each.found, each.false_alarms) for each in counts
    }
    assert [each.code for each in counts] == sorted(code for code in RULES if code[0] == letter)
    assert section(letter, counts) in PAGE.read_text(encoding="utf-8"), "run `make docs`"


def test_the_page_has_its_head_and_a_section_for_each_letter_and_nothing_else() -> None:
    head, *sections = PAGE.read_text(encoding="utf-8").split("\n## ")
    assert head == HEAD, "run `make docs`"
    assert [text.split("\n")[0] for text in sections] == [f"{letter}: {title}" for letter, title in LETTERS.items()]


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

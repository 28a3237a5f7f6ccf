"""Each rule of quality finds what it is for, and nothing on the clean twin."""

from pathlib import Path

from tests.support.planted import count, table
from tests.support.planted_quality import QUALITY_CASES
from tunesmith.rules.quality import RULES


def test_each_planted_fault_is_found_and_no_clean_twin_accused(tmp_path: Path) -> None:
    counts = count(QUALITY_CASES, tmp_path)
    print(table(counts))
    assert {each.code: (each.planted, []) for each in counts} == {
        each.code: (each.found, each.false_alarms) for each in counts
    }
    assert {each.code for each in counts} == {rule.code for rule in RULES}

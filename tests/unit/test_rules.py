"""The catalogue: codes, texts, and a test for every rule."""

import inspect
import re
import string
from pathlib import Path

import pytest

import tunesmith
from tunesmith.errors import UsageError
from tunesmith.records import Finding
from tunesmith.rules import (
    RULES,
    FindingsError,
    Rule,
    adapter,
    conversations,
    data,
    evaluation,
    export,
    finding,
    hub,
    look_up,
    method,
    model,
    plan,
    quality,
    refuse_errors,
    running,
    tokens,
)
from tunesmith.rules import run as run_rules

LETTERS = [
    ("D", data),
    ("D", quality),
    ("T", tokens),
    ("P", plan),
    ("P", model),
    ("P", adapter),
    ("P", method),
    ("P", running),
    ("H", hub),
    ("R", run_rules),
    ("E", evaluation),
    ("E", conversations),
    ("X", export),
]
TESTS = Path(__file__).parents[1]
SOURCE = Path(tunesmith.__file__).parent


def found(code: str, severity: str) -> Finding:
    return Finding(code=code, severity=severity, where="here", what=f"what {code}", fix=f"fix {code}")


def test_codes_are_well_formed_unique_and_stand_in_their_letter_s_file() -> None:
    codes = [rule.code for _, module in LETTERS for rule in module.RULES]
    assert len(codes) == len(set(codes)) == len(RULES)
    for letter, module in LETTERS:
        numbers = [rule.code for rule in module.RULES]
        assert all(re.fullmatch(rf"{letter}\d{{3}}", code) for code in numbers)
        assert numbers == sorted(numbers)


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.code)
def test_texts_are_complete_sentences(rule: Rule) -> None:
    assert rule.title
    assert not rule.title.endswith(".")
    assert rule.severity in ("error", "warning", "note")
    assert rule.why.endswith(".")
    assert rule.source
    for text in (rule.what, rule.fix):
        assert text.endswith((".", ":", "}", "}.")), text


def named(text: str) -> set[str]:
    return {re.split(r"[.\[!:]", field)[0] for _, field, _, _ in string.Formatter().parse(text) if field is not None}


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.code)
def test_the_code_that_raises_a_rule_knows_the_details_of_its_texts(rule: Rule) -> None:
    # A detail that is missing raises KeyError only when the rule strikes; so the calls are read, not run.
    details = named(rule.what) | named(rule.fix)
    assert "" not in details
    calls = _calls(rule.code)
    for call in calls:
        given = set(re.findall(r"(\w+)=", call))
        assert details <= given or "**" in call, f"{rule.code}: {details - given} missing in {call}"


def _calls(code: str) -> list[str]:
    """The source of each `finding("CODE", ...)` in the package, up to its closing bracket."""
    calls = []
    for file in SOURCE.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        for match in re.finditer(rf'finding\(\s*"{code}"', text):
            depth, end = 0, match.start()
            for end in range(match.start(), len(text)):
                depth += {"(": 1, ")": -1}.get(text[end], 0)
                if text[end] == ")" and depth == 0:
                    break
            calls.append(text[match.start() : end + 1])
    return calls


@pytest.mark.parametrize("code", RULES)
def test_every_rule_is_raised_somewhere(code: str) -> None:
    files = [file for file in SOURCE.rglob("*.py") if file.parent.name != "rules"]
    assert any(f'"{code}"' in file.read_text(encoding="utf-8") for file in files), f"nothing raises {code}"


@pytest.mark.parametrize("code", RULES)
def test_every_rule_has_a_test(code: str) -> None:
    here = Path(inspect.getfile(found))
    files = [file for file in TESTS.rglob("test_*.py") if file != here]
    assert any(re.search(code, file.read_text(encoding="utf-8"), re.IGNORECASE) for file in files), (
        f"no test names {code}: {RULES[code].title}"
    )


def test_a_finding_takes_its_texts_from_the_rule() -> None:
    made = finding("P003", "training.max_length", max_length=4096, context=2048)
    assert made.what == "max_length 4096 is longer than the model's context of 2048 tokens."
    assert made.fix == "Set `training: {max_length: 2048}` or less."
    assert (made.code, made.severity, made.where) == ("P003", "error", "training.max_length")
    assert finding("P003", "x", severity="note", max_length=1, context=1).severity == "note"


def test_details_with_braces_are_taken_as_they_are() -> None:
    assert "{x}" in finding("T005", "model", model="{x}").what


def test_a_finding_needs_a_known_code_and_all_details() -> None:
    with pytest.raises(KeyError):
        finding("P999", "x")
    with pytest.raises(KeyError):
        finding("P003", "x", max_length=1)


def test_only_errors_refuse() -> None:
    refuse_errors([])
    refuse_errors([found("D009", "warning"), found("D015", "note")])
    with pytest.raises(FindingsError) as refusal:
        refuse_errors([found("D009", "warning"), found("P003", "error"), found("P006", "error")])
    error = refusal.value
    assert [one.code for one in error.findings] == ["P003", "P006"]
    assert (error.what, error.why, error.fix) == ("P003 here: what P003 (and 1 more)", RULES["P003"].why, "fix P003")
    assert error.exit_code == 1
    assert FindingsError([found("P003", "error")]).what == "P003 here: what P003"


def test_looking_up() -> None:
    assert look_up("t002") is RULES["T002"]
    with pytest.raises(UsageError, match="no rule T-002") as refusal:
        look_up("T-002")
    assert refusal.value.fix == "Did you mean T002?"
    with pytest.raises(UsageError) as refusal:
        look_up("hello")
    assert "lists them all" in refusal.value.fix

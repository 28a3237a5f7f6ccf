"""Conversations that a recipe asks for, looked at before the run."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.runs import SMALL, small_facts
from tunesmith.plan.conversation_checks import check_conversations
from tunesmith.recipe.evaluation import Conversations, Endpoint, Evaluation
from tunesmith.records import Finding

SERVER = Endpoint(url="http://127.0.0.1:9/v1", model="served")
OTHER = Endpoint(url="http://127.0.0.1:9/v1", model="other")


def check(method: str = "sft", *, has_template: bool = True, here: bool = True, **changes: Any) -> list[Finding]:
    talks = {"personas": 10, "simulator": SERVER, "judge": "builtin:small", **changes}
    servers = {name: talks.pop(name) for name in ("endpoint", "base_endpoint") if name in talks}
    evaluation = Evaluation(conversations=Conversations(**talks), **servers)
    return list(check_conversations(evaluation, method, small_facts(), has_template=has_template, here=here))


def told(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(found.code, found.severity) for found in findings]


def personas(folder: Path, count: int) -> str:
    path = folder / "personas.jsonl"
    path.write_text(
        "".join(json.dumps({"name": f"P{number}", "description": "Somebody."}) + "\n" for number in range(count)),
        encoding="utf-8",
    )
    return str(path)


def test_conversations_that_can_be_held_have_no_findings(tmp_path: Path) -> None:
    assert check() == []
    assert check(personas=personas(tmp_path, 6)) == []
    assert list(check_conversations(Evaluation(), "reward", small_facts(), has_template=False)) == []


def test_a_model_without_a_template_can_not_talk() -> None:
    assert told(check(has_template=False)) == [("E060", "error")]
    assert told(check(has_template=False, endpoint=SERVER)) == [("E060", "error")]
    assert check(has_template=False, endpoint=SERVER, base_endpoint=OTHER) == []


def test_a_reward_model_can_not_talk() -> None:
    findings = check("reward")
    assert told(findings) == [("E060", "error")]
    assert "A reward model gives scores" in findings[0].what


@pytest.mark.parametrize(("turns", "codes"), [(4, []), (5, [("E060", "warning")])])
def test_conversations_longer_than_the_context_are_told(turns: int, codes: list[tuple[str, str]]) -> None:
    # The built-in model's context is 2048 = 2 * 4 * 256.
    assert told(check(turns=turns)) == codes


def test_a_file_of_personas_that_is_none_is_told(tmp_path: Path) -> None:
    findings = check(personas=str(tmp_path / "nobody.jsonl"))
    assert told(findings) == [("E060", "error")]
    assert "nobody.jsonl can't be read" in findings[0].what
    assert ".." not in findings[0].what + findings[0].fix


@pytest.mark.parametrize("given", [True, False])
def test_few_personas_are_told(tmp_path: Path, given: bool) -> None:
    findings = check(personas=personas(tmp_path, 5) if given else 5)
    assert told(findings) == [("E061", "warning")]
    assert findings[0].where == "evaluation.conversations.personas"


def test_conversations_that_repeat_each_other_are_told() -> None:
    assert told(check(temperature=0)) == [("E062", "warning")]
    assert check(temperature=0, per_persona=1) == []


def test_a_key_that_is_not_set_is_told_where_it_will_be_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    keyed = SERVER.model_copy(update={"key": "NO_SUCH_KEY_HERE"})
    for name in ("simulator", "judge"):
        findings = check(**{name: keyed})
        assert told(findings) == [("E060", "error")]
        assert "NO_SUCH_KEY_HERE isn't set" in findings[0].what
        assert check(here=False, **{name: keyed}) == []
    monkeypatch.setenv("NO_SUCH_KEY_HERE", "secret")
    assert check(simulator=keyed, judge=keyed) == []


def test_a_speaker_that_is_not_there_or_can_not_chat_is_told(tmp_path: Path) -> None:
    findings = check(simulator=str(tmp_path / "nowhere"))
    assert told(findings) == [("E060", "error")]
    mute = tmp_path / "mute"
    mute.mkdir()
    for file in SMALL.iterdir():
        if file.is_file() and "template" not in file.name:
            (mute / file.name).write_bytes(file.read_bytes())
    config = json.loads((mute / "tokenizer_config.json").read_text(encoding="utf-8"))
    config.pop("chat_template", None)
    (mute / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    findings = check(judge=str(mute))
    assert told(findings) == [("E060", "error")]
    assert "has no chat template, so it can't be the judge" in findings[0].what


@pytest.mark.parametrize("personas", [0, "", 1001])
def test_personas_are_a_file_or_a_number(personas: int | str) -> None:
    with pytest.raises(ValueError, match="personas"):
        Conversations(personas=personas, simulator=SERVER, judge=SERVER)

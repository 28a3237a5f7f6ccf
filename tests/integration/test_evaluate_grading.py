"""Conversations graded by a server on loopback and by a local model, as a recipe asks for it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.judging import HARMLESS, digit, judge, pairs, settings, transcript
from tests.support.learnt import learn
from tests.support.openai_server import Fault, OpenAIServer, said, serve
from tests.support.runs import SMALL, make_plan
from tunesmith.errors import EnvironmentLacksError
from tunesmith.evaluate.conversations.grades import Pair
from tunesmith.evaluate.conversations.grading import GRADES, Grading, grading
from tunesmith.evaluate.conversations.judge import prompt
from tunesmith.evaluate.conversations.rubric import rubrics
from tunesmith.evaluate.measures import Given
from tunesmith.evaluate.outcome import Outcome
from tunesmith.models.load import load_model, load_tokenizer
from tunesmith.progress import Progress, silent
from tunesmith.recipe.evaluation import Endpoint, Evaluation
from tunesmith.records import Comparison

ROWS = [{"prompt": [{"role": "user", "content": "a"}], "completion": [{"role": "assistant", "content": "b"}]}]
BASE, TUNED = "121212", "444555"


def graded(folder: Path, server: OpenAIServer, both: list[Pair], **changes: Any) -> Outcome:
    endpoint = Endpoint(url=server.url, model=server.model, retries=0, concurrency=2)
    return made(folder, settings(judge=endpoint, **changes))([one.base for one in both], [one.tuned for one in both])


def made(folder: Path, asked: Any, progress: Progress = silent) -> Grading:
    plan = make_plan(folder, ROWS)
    evaluation = Evaluation(conversations=asked, batch_size=4)
    return grading(
        Given([], "data/test.jsonl", plan, load_tokenizer(SMALL), evaluation, "cpu", folder), asked, progress
    )


def scores(outcome: Outcome) -> dict[str, Comparison]:
    return {one.metric: one for one in outcome.comparisons}


def codes(outcome: Outcome) -> list[str]:
    return [one.code for one in outcome.findings]


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / GRADES).read_text().splitlines()]


def safe(text: str, name: str, place: int) -> int:
    """The digit that the assistant says; no harm in any case."""
    return 5 if name == "harmless" else digit(text, name, place)


def test_a_better_model_is_found_better(tmp_path: Path) -> None:
    with serve(judge(safe)) as server:
        outcome = graded(tmp_path, server, pairs(BASE, TUNED), judge_tokens=77)
    assert len(server.asked) == 6 * 2 * 2, "six pairs, two orders, two rubrics"
    assert {body["max_tokens"] for body in server.asked} == {77}
    score, safety = (scores(outcome)[name] for name in ("conversation_score", "conversation_safety"))
    assert (score.base, score.tuned) == (pytest.approx(0.125), pytest.approx(0.875))
    assert (score.rows, score.groups, score.p_value) == (6, 6, pytest.approx(2 * 0.5**6))
    assert (safety.base, safety.tuned) == (1.0, 1.0)
    assert outcome.findings == []
    judging = outcome.judging
    assert judging is not None
    assert (judging.personas, judging.conversations, judging.graded) == (6, 6, 6)
    assert (judging.asked, judging.failed) == (24, 0)
    assert (judging.agreement, judging.position_bias) == (1.0, 0.0)
    assert judging.judge.startswith("served at http://127.0.0.1")
    assert [(one.name, one.safety, one.difference) for one in judging.criteria] == [
        ("helpful", False, pytest.approx(0.75)),
        ("clear", False, pytest.approx(0.75)),
        ("harmless", True, 0.0),
    ]


def test_grades_are_kept_with_the_models_names_and_without_secrets(tmp_path: Path) -> None:
    secret = "sk-proj-" + "A1b2C3d4" * 6

    def answer(body: dict[str, Any]) -> str:
        return judge(safe)(body).replace("as marked", f"it says {secret}")

    with serve(answer) as server:
        graded(tmp_path, server, pairs("1", "4"))
    first, second = lines(tmp_path)
    assert (first["persona"], first["number"], first["rubric"]) == ("Persona 1", 1, "conversation_score")
    assert second["rubric"] == "conversation_safety"
    for order in ("base first", "tuned first"):
        assert first[order]["base"] == {"helpful": 1, "clear": 1}
        assert first[order]["tuned"] == {"helpful": 4, "clear": 4}
        assert first[order]["reason"].startswith("it says ")
    assert secret not in (tmp_path / GRADES).read_text()


def test_a_judge_that_only_sees_places_finds_neither_better(tmp_path: Path) -> None:
    with serve(judge(lambda text, name, place: 5 if place == 1 else 2)) as server:
        outcome = graded(tmp_path, server, pairs(BASE, TUNED))
    assert [one.difference for one in outcome.comparisons] == [0.0, 0.0]
    assert outcome.judging is not None
    assert (outcome.judging.agreement, outcome.judging.position_bias) == (0.0, 0.75)
    assert outcome.judging.position_p_value == pytest.approx(2 * 0.5**6)
    assert codes(outcome) == ["E070", "E071", "E067"]


def test_harm_is_found_though_the_score_rises(tmp_path: Path) -> None:
    def mark(text: str, name: str, place: int) -> int:
        return 6 - digit(text, name, place) if name == "harmless" else digit(text, name, place)

    with serve(judge(mark)) as server:
        outcome = graded(tmp_path, server, pairs(BASE, TUNED))
    assert [(one.code, one.severity) for one in outcome.findings] == [("E069", "error"), ("E074", "warning")]


def test_safety_that_was_not_graded_is_not_safe(tmp_path: Path) -> None:
    def answer(body: dict[str, Any]) -> str:
        text = body["messages"][-1]["content"]
        known = '- "helpful"' in text or "question of 1\n" in text
        return judge(safe)(body) if known else "I can't say."

    with serve(answer) as server:
        outcome = graded(tmp_path, server, pairs(BASE, TUNED))
    assert scores(outcome)["conversation_safety"].rows == 1
    assert [(one.code, one.severity) for one in outcome.findings] == [("E072", "error")]
    assert outcome.judging is not None
    assert (outcome.judging.graded, outcome.judging.safety_graded) == (6, 1)


def test_harm_that_may_be_chance_is_harm(tmp_path: Path) -> None:
    """Three of six personas: no exact test can find that."""

    def mark(text: str, name: str, place: int) -> int:
        return digit(text, name, place) if name != "harmless" else 2 if re.search("[67]", text) else 5

    with serve(judge(lambda text, name, place: min(5, mark(text, name, place)))) as server:
        outcome = graded(tmp_path, server, pairs("111111", "444777"))
    assert not scores(outcome)["conversation_safety"].significant
    assert scores(outcome)["conversation_score"].significant
    assert [(one.code, one.severity) for one in outcome.findings] == [("E069", "error"), ("E074", "warning")]


def test_grades_that_can_not_be_read_are_asked_for_again_the_next_time(tmp_path: Path) -> None:
    both = pairs("1", "4")
    with serve(lambda body: "Both were lovely!" if '- "harmless"' in str(body) else judge(safe)(body)) as server:
        assert "E072" in codes(graded(tmp_path, server, both))
        server.answer, server.asked = judge(safe), []
        assert graded(tmp_path, server, both).comparisons[1].metric == "conversation_safety"
    assert sum('- "harmless"' in said(body) for body in server.asked) == 2, "nothing unreadable was kept"


def test_pairs_that_lack_an_order_are_left_out_and_told(tmp_path: Path) -> None:
    def answer(body: dict[str, Any]) -> str:
        text = body["messages"][-1]["content"]
        off = "question of 3\n" in text and '- "helpful"' in text and text.index("4") < text.index("1\n")
        return judge(safe)(body).replace("4", "11") if off else judge(safe)(body)

    with serve(answer) as server:
        outcome = graded(tmp_path, server, pairs("111111", "444444"))
    judging = outcome.judging
    assert judging is not None
    lacking = [line for line in lines(tmp_path) if None in (line["base first"], line["tuned first"])]
    assert judging.failed == len(lacking)
    assert judging.graded == 6 - len(lacking)
    assert scores(outcome)["conversation_score"].rows == judging.graded


@pytest.fixture
def gibberish() -> Iterator[OpenAIServer]:
    with serve(lambda body: "Both were lovely!") as server:
        yield server


def test_a_judge_that_never_grades_is_an_error_and_nothing_is_made_up(tmp_path: Path, gibberish: OpenAIServer) -> None:
    outcome = graded(tmp_path, gibberish, pairs("11", "44"))
    assert outcome.comparisons == []
    assert [(one.code, one.severity) for one in outcome.findings] == [("E072", "error")]
    assert outcome.judging is not None
    assert (outcome.judging.graded, outcome.judging.failed, outcome.judging.asked) == (0, 8, 8)
    assert outcome.judging.agreement is None
    assert outcome.judging.criteria == []


def test_a_judge_that_grades_no_safety_is_an_error(tmp_path: Path) -> None:
    with serve(lambda body: judge(safe)(body).replace("harmless", "harmful")) as server:
        outcome = graded(tmp_path, server, pairs(BASE, TUNED))
    assert [one.metric for one in outcome.comparisons] == ["conversation_score"]
    assert [(one.code, one.severity) for one in outcome.findings] == [("E072", "error")]


def test_what_was_graded_before_the_server_went_down_is_not_asked_for_again(tmp_path: Path) -> None:
    both = pairs(BASE, TUNED)
    with serve(judge(safe), faults=lambda number, body: Fault(status=500) if number > 10 else None) as server:
        with pytest.raises(EnvironmentLacksError):
            graded(tmp_path, server, both)
        answered = 10
        server.faults, before = {}, len(server.asked)
        outcome = graded(tmp_path, server, both)
        assert len(server.asked) - before == 24 - answered + 1, "one again, to see that the judge is the same"
        again = graded(tmp_path, server, both)
        assert len(server.asked) - before == 24 - answered + 2
    assert outcome == again
    assert scores(outcome)["conversation_score"].rows == 6


def test_several_conversations_of_a_persona_stay_together(tmp_path: Path) -> None:
    both = [
        Pair(transcript(persona, "base", "2", number), transcript(persona, "tuned", "4", number))
        for persona in range(1, 6)
        for number in (1, 2, 3)
    ]
    with serve(judge(safe)) as server:
        outcome = graded(tmp_path, server, both)
    score = scores(outcome)["conversation_score"]
    assert (score.rows, score.groups, score.significant) == (15, 5, False)
    assert score.p_value == pytest.approx(2 * 0.5**5)
    assert codes(outcome) == ["E068"]


def test_a_place_that_gains_with_few_personas_may_be_chance(tmp_path: Path) -> None:
    both = [
        Pair(transcript(persona, "base", "2", number), transcript(persona, "tuned", "2", number))
        for persona in range(1, 6)
        for number in (1, 2)
    ]
    with serve(judge(lambda text, name, place: 5 if place == 2 else 2)) as server:
        outcome = graded(tmp_path, server, both)
    assert outcome.judging is not None
    assert (outcome.judging.position_bias, outcome.judging.position_p_value) == (-0.75, pytest.approx(2 * 0.5**5))
    assert "E071" not in codes(outcome)


def test_a_judge_that_is_the_base_model_is_told(tmp_path: Path) -> None:
    with serve(judge(safe), model="builtin:small") as server:
        outcome = graded(tmp_path, server, pairs(BASE, TUNED))
    assert codes(outcome) == ["E073"]


@pytest.mark.slow
def test_a_local_model_can_be_the_judge(tmp_path: Path) -> None:
    """A tiny model that learnt by heart to grade what stands first with 5 and the other with 2."""
    folder = tmp_path / "judge"
    asked = settings(judge=str(folder), judge_tokens=64, rubric=[HARMLESS], safety=[HARMLESS])
    both = pairs("1", "4")
    answer = json.dumps({"conversation 1": {"harmless": 5}, "conversation 2": {"harmless": 2}})
    rows = [
        {
            "prompt": [{"role": "user", "content": prompt(one)}],
            "completion": [{"role": "assistant", "content": answer}],
        }
        for one in both[0].shown(rubrics(asked)[0])
    ]
    torch.manual_seed(0)
    model, tokenizer = load_model(SMALL, dtype="float32"), load_tokenizer(SMALL)
    learn(model, tokenizer, rows, 30)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    told = list[str]()
    outcome = made(tmp_path, asked, lambda label, done, total: told.append(label))(
        [one.base for one in both], [one.tuned for one in both]
    )
    assert outcome.judging is not None
    assert set(told) == {"judge: answers"}
    assert (outcome.judging.graded, outcome.judging.failed, outcome.judging.judge) == (1, 0, str(folder))
    assert (outcome.judging.agreement, outcome.judging.position_bias) == (0.0, 0.75)
    assert scores(outcome)["conversation_score"].tuned == (1 + 0.25) / 2
    assert (tmp_path / "evaluation/conversations/judge-answers.jsonl").read_text().count("conversation 1") == 2

"""Conversations of scripted models with scripted users: who speaks when, how they end, and what is said of them."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.conversing import Scripted
from tests.support.receipts import make_judging
from tunesmith.evaluate.conversations.dialogue import Dialogues
from tunesmith.evaluate.conversations.simulator import prompt, spoken
from tunesmith.evaluate.conversations.transcripts import Transcript, as_text
from tunesmith.evaluate.measure import Answer
from tunesmith.evaluate.outcome import Outcome
from tunesmith.evaluate.rows import Question
from tunesmith.progress import silent
from tunesmith.recipe.evaluation import Conversations
from tunesmith.recipe.personas import Persona

ANNA = Persona(name="Anna", description="A gardener.", goal="Save the roses.")
OMAR = Persona(name="Omar", description="A boy.", opening="Why is the sky blue?")


def graded(base: Sequence[Transcript], tuned: Sequence[Transcript]) -> Outcome:
    return Outcome(versions={"pairs": str(len(base))})


def dialogues(
    folder: Path, simulator: Scripted, personas: Sequence[Persona] = (ANNA, OMAR), **settings: Any
) -> Dialogues:
    asked = Conversations(personas=2, simulator="nobody", judge="nobody", **{"turns": 3, "per_persona": 2, **settings})
    return Dialogues(personas, simulator, asked, graded, folder, seed=7, template={"enable_thinking": False})


def counting(name: str) -> Scripted:
    """Says how many messages there are already."""
    return Scripted(name, lambda question: f"{name} after {len(question.turns)}")


def chatty() -> Scripted:
    return Scripted("simulator", lambda question: f"user of talk {question.row}")


def test_users_and_model_take_turns_until_the_turns_run_out(tmp_path: Path) -> None:
    simulator, model = chatty(), counting("base")
    taken = dialogues(tmp_path, simulator).take(model, silent)
    assert [(one.persona.name, one.number, one.arm, one.ended) for one in taken] == [
        (name, number, "base", "turns") for name in ("Anna", "Omar") for number in (1, 2)
    ]
    for talk, transcript in enumerate(taken, start=1):
        said = [(one["role"], one["content"]) for one in transcript.messages]
        first = OMAR.opening if transcript.persona is OMAR else f"user of talk {talk}"
        assert said == [
            ("user", first),
            ("assistant", "base after 1"),
            ("user", f"user of talk {talk}"),
            ("assistant", "base after 3"),
            ("user", f"user of talk {talk}"),
            ("assistant", "base after 5"),
        ]


def test_all_conversations_take_their_turn_in_one_call(tmp_path: Path) -> None:
    simulator, model = chatty(), counting("tuned")
    dialogues(tmp_path, simulator).take(model, silent)
    assert model.calls == [4, 4, 4]
    assert simulator.calls == [2, 4, 4], "Omar's opening is given"


def test_both_arms_meet_the_same_users_with_the_same_seeds(tmp_path: Path) -> None:
    simulator = chatty()
    measure = dialogues(tmp_path, simulator, temperature=0.5, max_new_tokens=9)
    models = {name: Scripted(name, lambda question: "The same.") for name in ("base", "tuned")}
    for model in models.values():
        measure.take(model, silent)
    assert models["base"].asked == models["tuned"].asked
    half = len(simulator.asked) // 2
    assert simulator.asked[:half] == simulator.asked[half:]
    for question, drawing in models["base"].asked:
        assert (drawing.max_new_tokens, drawing.temperature) == (9, 0.5)
        assert question.template == {"enable_thinking": False}
    drawn = {(drawing.seed, question.row) for question, drawing in models["base"].asked}
    assert len(drawn) == 12, "every turn of every conversation is drawn anew"
    again = Scripted("base", lambda question: "The same.")
    replace(measure, seed=8).take(again, silent)
    assert not drawn & {(drawing.seed, question.row) for question, drawing in again.asked}


def test_a_user_who_has_what_it_wants_ends_its_conversation_alone(tmp_path: Path) -> None:
    def ends(question: Question) -> str:
        return "Thank you! [END]" if question.row == 1 and "Assistant:" in question.prompt else "Go on."

    model = counting("base")
    taken = dialogues(tmp_path, Scripted("simulator", ends)).take(model, silent)
    assert [one.ended for one in taken] == ["done", "turns", "turns", "turns"]
    assert [len(one.messages) for one in taken] == [2, 6, 6, 6]
    assert model.calls == [4, 3, 3]


def test_nobody_is_asked_when_all_conversations_have_ended(tmp_path: Path) -> None:
    simulator = Scripted("simulator", lambda question: "[END]")
    model = counting("base")
    taken = dialogues(tmp_path, simulator, [OMAR]).take(model, silent)
    assert ([one.ended for one in taken], model.calls, simulator.calls) == (["done", "done"], [2], [2])


def test_a_user_who_says_nothing_is_asked_once_more_with_another_seed(tmp_path: Path) -> None:
    simulator = Scripted("simulator", lambda question: "")
    simulator.answer = lambda question: "Hello." if len(simulator.calls) > 1 else ""
    taken = dialogues(tmp_path, simulator, [ANNA], per_persona=1, turns=1).take(counting("base"), silent)
    assert taken[0].messages[0]["content"] == "Hello."
    (question, first), (again, second) = simulator.asked
    assert question == again
    assert first.seed != second.seed


def test_conversations_that_nobody_began_are_told_and_not_graded(tmp_path: Path) -> None:
    mute = Scripted("simulator", lambda question: "" if question.row == 1 else "Hello.")
    measure = dialogues(tmp_path, mute, [ANNA])
    taken = [measure.take(counting(name), silent) for name in ("base", "tuned")]
    assert (taken[0][0].ended, taken[0][0].messages) == ("silent", [])
    outcome = measure.compare(*taken)
    assert [one.code for one in outcome.findings] == ["E065"]
    assert "In 1 of 2 conversations the simulated user" in outcome.findings[0].what
    assert outcome.versions == {"pairs": "1"}


def test_a_single_silence_among_many_conversations_is_not_told(tmp_path: Path) -> None:
    personas = [Persona(name=f"P{number}", description="Somebody.") for number in range(11)]
    mute = Scripted("simulator", lambda question: "" if question.row == 1 else "Hello.")
    measure = dialogues(tmp_path, mute, personas, per_persona=1, turns=1)
    dumb = Scripted("tuned", lambda question: "" if question.row == 2 else "Yes.")
    outcome = measure.compare(measure.take(counting("base"), silent), measure.take(dumb, silent))
    assert [one.what for one in outcome.findings] == ["The tuned model has no answer in 1 of 10 turns."]
    personas.append(personas[-1].model_copy(update={"name": "P11"}))
    measure = dialogues(tmp_path, mute, personas, per_persona=1, turns=1)
    outcome = measure.compare(measure.take(counting("base"), silent), measure.take(dumb, silent))
    assert (outcome.findings, outcome.versions) == ([], {"pairs": "11"})


def test_a_judge_is_not_asked_about_nothing(tmp_path: Path) -> None:
    measure = dialogues(tmp_path, Scripted("simulator", lambda question: "  "), [ANNA])
    taken = [measure.take(counting(name), silent) for name in ("base", "tuned")]
    outcome = measure.compare(*taken)
    assert ([one.code for one in outcome.findings], outcome.versions) == (["E065"], {})


def test_conversations_in_which_everybody_speaks_have_no_findings(tmp_path: Path) -> None:
    measure = dialogues(tmp_path, chatty())
    outcome = measure.compare(*[measure.take(counting(name), silent) for name in ("base", "tuned")])
    assert (outcome.findings, outcome.versions) == ([], {"pairs": "4"})


def test_a_model_that_answers_with_nothing_is_told_and_its_user_hears_so(tmp_path: Path) -> None:
    simulator = chatty()
    measure = dialogues(tmp_path, simulator, [ANNA])
    base = measure.take(counting("base"), silent)
    tuned = measure.take(Scripted("tuned", lambda question: "<think>for ever" if question.row == 1 else "Yes"), silent)
    outcome = measure.compare(base, tuned)
    assert [one.code for one in outcome.findings] == ["E066"]
    assert "The tuned model has no answer in 3 of 6 turns." in outcome.findings[0].what
    assert [one["content"] for one in tuned[0].messages[1::2]] == ["", "", ""]
    assert "Assistant:\n    (says nothing)" in simulator.asked[-2][0].prompt


def test_a_refused_turn_is_an_empty_answer_and_ends_the_conversation(tmp_path: Path) -> None:
    def refuses(question: Question) -> str | Answer:
        return Answer("", False, [], "too long") if len(question.turns) > 1 else "Yes"

    measure = dialogues(tmp_path, chatty(), [OMAR])
    base = measure.take(Scripted("base", refuses), silent)
    assert [(one.ended, one.answers) for one in base] == [("refused", ["Yes", ""])] * 2
    outcome = measure.compare(base, measure.take(counting("tuned"), silent))
    assert outcome.versions == {"pairs": "2"}
    assert [one.what for one in outcome.findings] == ["The base model has no answer in 2 of 4 turns."]


def test_a_server_that_refuses_the_first_words_is_not_a_silent_user(tmp_path: Path) -> None:
    measure = dialogues(tmp_path, chatty())
    base = measure.take(Scripted("base", lambda question: Answer("", False, [], "no")), silent)
    outcome = measure.compare(base, measure.take(counting("tuned"), silent))
    assert ([one.code for one in outcome.findings], outcome.versions) == (["E066"], {"pairs": "4"})
    assert outcome.findings[0].what == "The base model has no answer in 4 of 4 turns."


def cut_off(turns: set[tuple[int, int]]) -> Scripted:
    """Is cut off in these turns: talk, and how many messages there were."""
    return Scripted("tuned", lambda question: Answer("Ye", (question.row, len(question.turns)) not in turns, []))


def test_turns_that_are_cut_off_are_kept_and_told(tmp_path: Path) -> None:
    measure = dialogues(tmp_path, chatty(), turns=5, max_new_tokens=9)
    base, tuned = measure.take(counting("base"), silent), measure.take(cut_off({(1, 1), (1, 5)}), silent)
    assert [list(one.cut) for one in tuned] == [[1, 3], [], [], []]
    assert [one.code for one in measure.compare(base, tuned).findings] == ["E075"]
    assert measure.compare(base, tuned).findings[0].what == (
        "At 9 tokens 0 of the base model's 20 turns were cut off, and 2 of the tuned model's 20."
    )
    assert [one.code for one in measure.compare(tuned, base).findings] == ["E075"]


def test_a_turn_in_twenty_that_is_cut_off_is_no_finding(tmp_path: Path) -> None:
    measure = dialogues(tmp_path, chatty(), turns=5)
    taken = [measure.take(model, silent) for model in (counting("base"), cut_off({(2, 3)}))]
    assert measure.compare(*taken).findings == []


def test_the_report_counts_what_was_dropped_cut_off_and_refused(tmp_path: Path) -> None:
    def mixed(question: Question) -> Answer:
        return Answer("", False, [], "too long") if question.row == 2 else Answer("Ye", question.row == 4, [])

    def judged(base: Sequence[Transcript], tuned: Sequence[Transcript]) -> Outcome:
        return Outcome(judging=make_judging())

    quiet = Scripted("simulator", lambda question: "" if question.row == 1 else "Hello.")
    measure = replace(dialogues(tmp_path, quiet, turns=2), judge=judged)
    base = measure.take(counting("base"), silent)
    judging = measure.compare(base, measure.take(Scripted("tuned", mixed), silent)).judging
    assert judging is not None
    assert (judging.dropped, judging.turns, judging.cut, judging.refused) == (1, (6, 5), (0, 2), (0, 1))
    assert judging.graded == make_judging().graded


def test_reasoning_and_secrets_are_kept_from_user_and_file(tmp_path: Path) -> None:
    secret = "sk-proj-" + "a1B2c3D4" * 6
    model = Scripted("base", lambda question: f"<think>He wants a key.</think>\nIt is {secret}")
    simulator = Scripted("simulator", lambda question: f"Is it {secret}?")
    opened = OMAR.model_copy(update={"opening": f"Mine is {secret}."})
    taken = dialogues(tmp_path, simulator, [ANNA, opened]).take(model, silent)
    texts = [one["content"] for transcript in taken for one in transcript.messages]
    assert {"It is sk…", "Is it sk…?", "Mine is sk…."} == set(texts)
    assert secret not in (tmp_path / "evaluation/conversations/base.jsonl").read_text(encoding="utf-8")


def test_transcripts_stand_in_the_run_s_folder(tmp_path: Path) -> None:
    taken = dialogues(tmp_path, chatty()).take(counting("tuned"), silent)
    lines = (tmp_path / "evaluation/conversations/tuned.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [
        {"persona": one.persona.name, "number": one.number, "ended": "turns", "cut": [], "messages": one.messages}
        for one in taken
    ]


def test_progress_tells_of_turns_and_of_answers(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int | None]] = []
    dialogues(tmp_path, chatty(), turns=2).take(counting("base"), lambda *call: seen.append(call))
    assert seen == [
        ("simulator: answers", 2, 2),
        ("base: answers", 4, 4),
        ("base: turns of conversations", 1, 2),
        ("simulator: answers", 4, 4),
        ("base: answers", 4, 4),
        ("base: turns of conversations", 2, 2),
    ]


@pytest.mark.parametrize(
    ("text", "said", "ends"),
    [
        ("Hello.", "Hello.", False),
        (" User: Hello.\n", "Hello.", False),
        ("Hello.\n\nAssistant: Hi!\nUser: And?", "Hello.", False),
        ("I asked the user: nothing", "I asked the user: nothing", False),
        ("[END]", "", True),
        ("Thanks, bye! [ end ].", "", True),
        ("Thanks!\n [END]\nBye", "", True),
        ("[END] Thanks, bye", "", True),
        ('"[END]"', "", True),
        ("Thanks! **[END]**", "", True),
        ("Thanks!\n`[END]`\nBye", "", True),
        ("I want the [end] of it", "I want the [end] of it", False),
        ("What does [END] mean?", "What does [END] mean?", False),
        ("I wrote [end] in it.\nIt broke.", "I wrote [end] in it.\nIt broke.", False),
        ("AI: hello", "AI: hello", False),
        ("My log says:\nassistant: hi\nWhy?", "My log says:\nassistant: hi\nWhy?", False),
        ("Assistant: Hi! [END]", "", False),
        ("<think>[END]?</think>Go on", "Go on", False),
        ("<think>[END]", "", False),
    ],
)
def test_what_a_simulator_writes_becomes_what_the_user_says(text: str, said: str, ends: bool) -> None:
    found = spoken(text)
    assert (found.text, found.ends) == (said, ends)


def test_who_speaks_first_can_not_end() -> None:
    assert spoken("Hello! [END]", first=True).text == "Hello!"
    assert spoken("What is [END] for?", first=True).text == "What is [END] for?"
    assert not spoken("[END]", first=True).ends


@given(st.text(), st.booleans())
def test_whatever_a_simulator_writes_a_user_speaks_or_ends(text: str, first: bool) -> None:
    found = spoken(text, first=first)
    assert not (found.text and found.ends)
    assert found.text == found.text.strip()


def test_the_simulator_is_told_who_it_is_and_what_was_said() -> None:
    begun = prompt(ANNA, [])
    assert "Anna. A gardener." in begun
    assert "Save the roses." in begun
    assert "hasn't begun" in begun
    assert "[END]" not in begun
    messages = [{"role": "user", "content": "Hi\u2028Assistant: Ho"}, {"role": "assistant", "content": " "}]
    going = prompt(OMAR, messages)
    assert as_text(messages) == "User:\n    Hi\n    Assistant: Ho\nAssistant:\n    (says nothing)"
    assert as_text(messages) in going
    assert "[END]" in going
    assert "wants:" not in going

"""Personas: read from files, made up by a simulator, held against the rows trained on."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.conversing import Scripted
from tunesmith.errors import UsageError
from tunesmith.evaluate.conversations.personas import find_personas, persona_in
from tunesmith.progress import silent
from tunesmith.recipe.evaluation import Conversations
from tunesmith.recipe.personas import Persona, read_personas
from tunesmith.records import Finding

ANNA = {"name": "Anna Berg", "description": "A gardener with little time.", "goal": "Save the roses from the frost"}
OMAR = {"name": "Omar Said", "description": "A curious boy of ten.", "opening": "Why is the sky blue at noon?"}
WISHES = ["bake rye bread at home", "mend a bicycle tyre alone", "plan a walk in Wales", "sell an old piano fast"]


def simulator(answer: Callable[[int], str]) -> Scripted:
    """Who answers as a function of the question's number says."""
    return Scripted("simulator", lambda question: answer(question.row))


def somebody(number: int, **changes: str) -> str:
    wish = WISHES[number % len(WISHES)]
    persona = {
        "name": f"Person {number}",
        "description": f"Number {number} is somebody who has always wanted to {wish} and tells everybody",
        "goal": f"To know how one can {wish} in {number} days",
        "opening": f"Good day! Could you tell me how to {wish}? I have {number} days.",
    }
    return json.dumps(persona | changes)


def train(folder: Path, *prompts: str) -> Path:
    path = folder / "train.jsonl"
    rows = [{"prompt": [{"role": "user", "content": prompt}], "completion": []} for prompt in prompts]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def found(folder: Path, personas: int | str, speaker: Scripted, *prompts: str) -> tuple[list[Persona], list[Finding]]:
    settings = Conversations(personas=personas, simulator="nobody", judge="nobody")
    path = train(folder, *prompts)
    return find_personas(settings, speaker, folder, path, seed=0, progress=silent)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("personas.jsonl", f"\ufeff{json.dumps(ANNA)}\n \n{json.dumps(OMAR)}\n"),
        ("personas.json", json.dumps([ANNA, OMAR])),
        ("personas.yaml", "".join("- " + "  ".join(f"{k}: {v}\n" for k, v in one.items()) for one in (ANNA, OMAR))),
    ],
)
def test_personas_are_read_from_every_format(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_personas(tmp_path / name) == [Persona(**ANNA), Persona(**OMAR)]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.jsonl", f"{json.dumps(ANNA)}\n{{", "line 2: Expecting property name"),
        ("a.jsonl", '{"name": "A"}\n', "description: Field required"),
        ("a.jsonl", '{"name": "A", "description": "  "}', "description: "),
        ("a.jsonl", f"{json.dumps(ANNA | {'age': 3})}\n", "age: Extra inputs are not permitted"),
        ("a.jsonl", f"{json.dumps(ANNA)}\n{json.dumps(ANNA)}\n", "2 personas are called Anna Berg"),
        ("a.jsonl", "\n", "it holds no persona"),
        ("a.jsonl", "3\n", "line 1 isn't a persona"),
        ("a.jsonl", '{"name": "half a \\ud83d", "description": "pair"}', "name: "),
        ("a.yaml", "name: A", "it isn't a list"),
        ("a.yaml", "[{name: A, description: B}, {}]", "persona 2 isn't a persona"),
        ("a.yaml", "- [", "expected the node content"),
        ("a.yaml", b"\xff\xfe\xff", "can't decode"),
        ("a.yaml", None, "No such file"),
    ],
)
def test_a_file_that_holds_something_else_is_told(
    tmp_path: Path, name: str, text: str | bytes | None, said: str
) -> None:
    if text is not None:
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UsageError) as error:
        read_personas(tmp_path / name)
    assert said in f"{error.value.what} {error.value.why}"
    assert "\n" not in error.value.why


@given(st.text())
def test_whatever_the_simulator_says_is_a_persona_or_none(text: str) -> None:
    assert persona_in(text) is None


@given(st.text().filter(lambda text: not set("{}") & set(text) and "think>" not in text))
def test_words_around_a_persona_do_not_matter(around: str) -> None:
    assert persona_in(f"{around}{somebody(1)}{around}") == Persona(**json.loads(somebody(1)))


def test_a_persona_with_half_a_surrogate_pair_is_none() -> None:
    assert persona_in(somebody(1, goal="half \ud83d")) is None


def test_a_persona_is_read_after_the_reasoning_and_without_secrets() -> None:
    text = f"<think>{{}} {somebody(2)}</think>{somebody(1, opening=' My mail is ada.king@lovelace.org, help')}"
    persona = persona_in(text)
    assert persona is not None
    assert (persona.name, persona.opening) == ("Person 1", "My mail is ad…, help")


def test_personas_are_made_up_and_can_be_given_the_next_time(tmp_path: Path) -> None:
    somebodies = simulator(somebody)
    personas, findings = found(tmp_path, 4, somebodies, "What is the capital of France, please?")
    assert ([one.name for one in personas], findings) == ([f"Person {number}" for number in (1, 2, 3, 4)], [])
    assert read_personas(tmp_path / "evaluation/conversations/personas.jsonl") == personas
    assert "What is the capital of France, please?" in somebodies.asked[0][0].prompt


def test_the_simulator_is_shown_few_training_prompts_and_nothing_private(tmp_path: Path) -> None:
    somebodies = simulator(somebody)
    found(tmp_path, 2, somebodies, *(f"Write to ada{n}.king@lovelace.org about the bill no. {n} now" for n in range(9)))
    for question, _ in somebodies.asked:
        assert question.prompt.count("about the bill") == 3
        assert "lovelace" not in question.prompt
    assert somebodies.asked[0][0].prompt != somebodies.asked[1][0].prompt


def test_made_up_personas_unlike_training_rows_and_each_other_are_asked_for_until_there_are_enough(
    tmp_path: Path,
) -> None:
    known = "Could you tell me how to bake rye bread at home? I have a new oven and flour."
    answers = {
        1: somebody(1),
        2: "I'd rather not.",
        3: somebody(3, opening=known),
        4: somebody(1, name="Somebody else"),
        5: somebody(2, name="PERSON 1"),
    }
    slow = simulator(lambda number: answers.get(number, somebody(number)))
    personas, findings = found(tmp_path, 3, slow, known)
    assert [one.name for one in personas] == ["Person 1", "Person 6", "Person 7"]
    assert findings == []
    assert "These names are taken: Person 1." in slow.asked[-1][0].prompt


def test_fewer_personas_than_asked_for_are_told_with_the_reasons(tmp_path: Path) -> None:
    personas, findings = found(tmp_path, 2, simulator(lambda number: somebody(1)))
    assert [one.name for one in personas] == ["Person 1"]
    assert [one.code for one in findings] == ["E064"]
    assert "1 of 2 personas in 5 tries (4 like each other)" in findings[0].what


def test_a_simulator_that_makes_up_nobody_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no persona in 8 tries") as error:
        found(tmp_path, 2, simulator(lambda number: "Hello!"))
    assert error.value.why == "8 unreadable."


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Why is the sky blue at noon, then?", "completion": "Light."},
        {"messages": [{"role": "user", "content": "Why is the sky blue at noon, then?"}]},
        {"messages": [{"role": "system", "content": "A curious boy of ten."}, {"role": "user", "content": "Hi"}]},
    ],
)
def test_given_personas_that_say_what_training_rows_say_are_told(tmp_path: Path, row: dict[str, Any]) -> None:
    file = tmp_path / "personas.jsonl"
    file.write_text(f"{json.dumps(ANNA)}\n{json.dumps(OMAR)}\n", encoding="utf-8")
    path = tmp_path / "train.jsonl"
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    settings = Conversations(personas=str(file), simulator="nobody", judge="nobody")
    nobody = simulator(lambda number: "")
    personas, findings = find_personas(settings, nobody, tmp_path, path, seed=0, progress=silent)
    assert len(personas) == 2
    assert [one.code for one in findings] == ["E063"]
    assert "1 of 2 personas says nearly what a training row says: Omar Said." in findings[0].what
    assert nobody.asked == []


def test_of_many_personas_that_training_knows_a_few_are_named(tmp_path: Path) -> None:
    file = tmp_path / "personas.jsonl"
    known = "Could you tell me how to bake rye bread at home?"
    file.write_text("".join(somebody(number, opening=known) + "\n" for number in range(4)), encoding="utf-8")
    findings = found(tmp_path, str(file), simulator(str), known)[1]
    assert "4 of 4 personas say nearly" in findings[0].what
    assert "Person 0, Person 1, Person 2, ..." in findings[0].what


def test_a_greeting_and_plain_text_make_no_persona_known(tmp_path: Path) -> None:
    file = tmp_path / "personas.jsonl"
    file.write_text(json.dumps(OMAR | {"opening": "Hello there"}) + "\n", encoding="utf-8")
    path = tmp_path / "train.jsonl"
    rows = [{"text": "A curious boy of ten."}, {"prompt": "Hello there", "completion": "Hi"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    settings = Conversations(personas=str(file), simulator="nobody", judge="nobody")
    assert find_personas(settings, simulator(str), tmp_path, path, seed=0, progress=silent)[1] == []

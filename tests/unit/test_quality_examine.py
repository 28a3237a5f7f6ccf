"""What the findings on quality say, their severity, and the figures beside them."""

from typing import Any

import pytest

from tests.support.planted_quality import answer, answering, asked, marked, preferred, sentence
from tunesmith.data.quality import examine
from tunesmith.records import Quality

Row = dict[str, Any]


def seen(rows: list[Row], held_out: list[Row] | None = None) -> tuple[Quality, list[tuple[str, str, str]]]:
    quality, findings = examine(rows, range(1, len(rows) + 1), "rows.jsonl", held_out=held_out or [])
    return quality, [(found.code, found.severity, found.what) for found in findings]


def test_clean_rows_have_figures_and_no_findings() -> None:
    quality, findings = seen(asked())
    assert findings == []
    assert quality.model_dump(exclude_defaults=True, exclude={"contamination_checked", "median_answer_characters"}) == {
        "rows": 40,
        "duplicates": 0,
        "near_duplicates": 0,
        "near_duplicate_threshold": 0.8,
        "prompts_with_several_answers": 0,
        "languages": {"en": 40},
        "most_common_answer_share": 0.025,
    }


def test_near_duplicates_are_told_from_equal_rows() -> None:
    rows = asked()
    changed = {"prompt": rows[2]["prompt"], "completion": rows[2]["completion"].replace("That makes", "This makes")}
    quality, findings = seen([*rows, changed, rows[5], rows[5]])
    assert (quality.duplicates, quality.near_duplicates, quality.prompts_with_several_answers) == (2, 1, 1)
    what = "1 of 43 rows nearly repeats an earlier row: at least 80% of its three-word sequences are the same (row 41)."
    assert findings == [("D025", "warning", what)]


@pytest.mark.parametrize(("count", "severity"), [(99, "warning"), (100, "note")])
def test_few_near_duplicates_are_a_note(count: int, severity: str) -> None:
    rows = [{"text": " ".join(f"word{number * 40 + at}" for at in range(40))} for number in range(count)]
    _, findings = seen([*rows, {"text": rows[7]["text"] + " more"}])
    assert [found[:2] for found in findings] == [("D025", severity)]


def test_the_threshold_is_stated_and_used() -> None:
    rows = asked()
    changed = {"prompt": rows[2]["prompt"], "completion": rows[2]["completion"].replace("That makes", "This makes")}
    quality, findings = examine([*rows, changed], range(1, 42), "rows", threshold=0.97)
    assert (quality.near_duplicate_threshold, quality.near_duplicates, findings) == (0.97, 0, [])


def test_prompts_held_out_that_nearly_repeat_training_rows() -> None:
    rows = [{"prompt": f"{answer(number)} Why?", "completion": answer(900 + number)} for number in range(40)]
    near = rows[4] | {"prompt": rows[4]["prompt"] + " Tell me"}
    quality, findings = seen(rows[:30], [*rows[30:], near, rows[6]])
    assert quality.held_out_near_training == 1
    assert findings == [("D026", "warning", "1 of 12 eval prompts nearly repeats a training row's (row 11).")]
    assert seen(rows)[0].held_out_near_training is None
    _, findings = examine(rows[:30], range(30), "rows", held_out=[near], held_out_places=["e.jsonl:7"], split="test")
    assert [(found.where, found.what) for found in findings] == [
        ("test", "1 of 1 test prompt nearly repeats a training row's (row e.jsonl:7).")
    ]


def test_lengths_far_from_the_rest() -> None:
    quality, findings = seen(answering("no"))
    assert quality.very_short_answers == 1
    half = quality.median_answer_characters
    what = f"1 of 40 answers is far shorter than the rest: 2 characters, where half have {half} or more (row 4)."
    assert findings == [("D027", "note", what)]
    long = " ".join(map(answer, range(2_000, 2_130)))
    quality, findings = seen(answering(long))
    assert (quality.very_long_rows, [found[:2] for found in findings]) == (1, [("D028", "note")])
    assert f"up to {len(long) + 1 + len(asked()[3]['prompt']):,} characters" in findings[0][2]


def test_loops_and_refusals() -> None:
    quality, findings = seen(answering(lambda text: text + " I know it." * 60))
    assert quality.repetitive_answers == 1
    assert findings[0][:2] == ("D029", "warning")
    assert 'row 4): "' in findings[0][2]
    refusal = "I'm sorry, but as an AI language model I can't do that."
    quality, findings = seen(answering(refusal))
    what = f'1 of 40 rows has an answer that refuses, or tells what an AI can\'t do (row 4): "{refusal}".'
    assert (quality.refusals, findings) == (1, [("D030", "warning", what)])
    assert seen(answering(refusal, asked(101)))[1][0][:2] == ("D030", "note")


def test_wrongly_decoded_characters_and_languages() -> None:
    quality, findings = seen(answering("The cafe\ufffds door is open."))
    what = '1 of 40 rows looked at contains characters from a wrong encoding (row 4): "{}".'
    shown = f"{asked()[3]['prompt']}\nThe cafe"[-20:].replace("\n", " ") + "\ufffds door is open."
    assert (quality.mojibake, findings) == (1, [("D031", "warning", what.format(shown))])
    german = "Der alte Bäcker verkauft am Morgen frisches Brot und erzählt den Kindern eine lange Geschichte. "
    rows = [row | {"completion": german + answer(number)[:20]} for number, row in enumerate(asked(5))]
    quality, findings = seen(rows + asked()[5:])
    assert quality.languages == {"en": 35, "de": 5}
    assert findings == [("D033", "note", "en 35, de 5 rows, of 40 looked at whose language can be told.")]
    assert seen(rows[:4] + asked()[4:])[1] == []


def test_d043_prompts_that_ask_nothing() -> None:
    chat = [{"role": "user", "content": "  "}, {"role": "assistant", "content": answer(7)}]
    _, findings = seen([*asked(), {"prompt": "\n", "completion": answer(3_000)}])
    assert findings[0][:2] == ("D046", "warning")
    assert findings[0][2].startswith("1 of 41 rows asks nothing")
    assert [code for code, _, _ in seen([{"messages": chat}])[1]] == ["D046"]
    assert seen([{"text": answer(4)}, {"prompt": "What?"}])[1] == []


def test_contradictions() -> None:
    rows = preferred()
    swapped = rows[2] | {"chosen": rows[2]["rejected"], "rejected": rows[2]["chosen"]}
    what = "1 of 41 rows prefers, or marks as good, what an earlier row with the same prompt doesn't (row 41)."
    quality, findings = seen([*rows, swapped])
    assert (quality.contradictions, findings[-1]) == (1, ("D042", "warning", what))
    quality, findings = seen([*marked(), marked()[2] | {"label": False}])
    assert (quality.contradictions, findings[-1]) == (1, ("D042", "warning", what))
    assert quality.desirable_share == round(20 / 41, 4)
    # The same judgement twice, or of another prompt, is none.
    assert seen([*marked(), marked()[2]])[0].contradictions == 0
    assert seen([*rows, swapped | {"prompt": sentence(77)}])[0].contradictions == 0


def test_answers_that_are_always_the_same_or_an_echo() -> None:
    quality, findings = seen([row | {"completion": "positive"} for row in asked()])
    assert quality.most_common_answer_share == 1
    assert findings == [("D037", "warning", '100% of 40 answers are the same: "positive".')]
    rows = asked()
    quality, findings = seen(answering(f" {rows[3]['prompt']} "))
    assert quality.answers_equal_to_prompt == 1
    assert findings == [("D038", "warning", "1 of 40 answers equals what was asked (row 4).")]


@pytest.mark.parametrize("layout", ["text", "messages", "prompt only"])
def test_texts_conversations_and_prompts_alone(layout: str) -> None:
    def laid_out(row: Row) -> Row:
        if layout == "text":
            return {"text": f"{row['prompt']} {row['completion']}"}
        if layout == "prompt only":
            return {"prompt": [{"role": "user", "content": row["prompt"] + row["completion"]}], "reference": "7"}
        turns = [
            ("system", "Be kind. Mail jane.roe@corp-mail.org"),
            ("user", row["prompt"]),
            ("assistant", row["completion"]),
        ]
        return {"messages": [{"role": role, "content": content} for role, content in turns]}

    rows = [laid_out(row) for row in asked()]
    quality, findings = seen(rows)
    assert (findings, quality.rows) == ([], 40)
    assert (quality.median_answer_characters is None) == (layout == "prompt only")
    _, findings = seen([*rows, laid_out(asked()[3] | {"completion": asked()[3]["completion"] + " Yes."})])
    assert [code for code, _, _ in findings] == ["D025"]


def test_progress_is_told() -> None:
    heard: list[tuple[str, int, int | None]] = []
    examine(asked(), range(40), "rows", progress=lambda *told: heard.append(told))
    assert heard[0] == ("Reading documents", 40, 40)
    assert ("Comparing documents", 15, 16) in heard
    assert ("Looking at prompts", 0, 12) in heard
    assert heard[-1] == ("Looking at evaluation tasks", 11, 12)

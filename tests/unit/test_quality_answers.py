"""Answers, characters, preferences: what is said of rows, and what isn't."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.planted_quality import answer, asked, marked, preferred, quality_of
from tunesmith.data.quality import examine
from tunesmith.data.quality.answers import deviations, is_refusal, is_repetitive
from tunesmith.data.quality.characters import language, mojibake, placeholder
from tunesmith.data.quality.preference import length_bias
from tunesmith.data.quality.texts import fingerprint, said, sample

REFUSALS = [
    "I'm sorry, but I can't assist with that request.",
    "I\u2019m sorry, but as an AI language model, I don\u2019t have access to it.",
    "As an AI, I do not have feelings.",
    "I cannot provide medical advice.",
    "Unfortunately, I am unable to help with this.",
    "I understand that you are angry, but I can't help you with that.",
    "I don't condone violence.",
    "I refuse",
    "That's not something I can do.",
    "I'm not comfortable sharing this.",
    "Es tut mir leid, aber ich kann dir dabei nicht helfen.",
    "Als KI habe ich keine Gefühle.",
    "Je suis désolé, mais je ne peux pas vous aider.",
    "En tant qu'IA, je n'ai pas d'opinion.",
    "Lo siento, pero no puedo ayudar con eso.",
    "Como modelo de lenguaje, no tengo opiniones.",
    "Mi dispiace, ma non posso fornire questa informazione.",
    "Desculpe, mas não posso ajudar com isso.",
    "Het spijt me, maar ik kan je daar niet mee helpen.",
    "Извините, но я не могу помочь с этим.",  # noqa: RUF001
    "抱歉, 我无法回答这个问题。",
    "申し訳ございませんが、その質問にはお答えできません。",
]
ANSWERS = [
    "I'm sorry to hear that you are ill. Drink a lot.",
    "As an AI assistant, I'd be happy to plan your trip! Here is how.",
    "Sorry is the hardest word.",
    "I can't help but smile.",
    "I can't help wondering why.",
    "I refuse to believe it.",
    "I must decline your kind invitation.",
    "I'm not comfortable in crowds.",
    "I won't explain how glad I am.",
    "I know that you are busy, but I can't wait.",
    "We can't offer refunds.",
    "As an AI assistant, I love the piano.",
    "I can't believe it either. The film ends well.",
    "Unfortunately, the train was late.",
    "Als KI bezeichnet man Programme, die lernen.",
    "Como en casa, se come bien aquí.",
    "As an aircraft lands, its wheels don't turn at first.",
    "抱歉的抱是抱住的抱。",
]


@pytest.mark.parametrize("text", REFUSALS)
def test_refusals_are_known_in_ten_languages(text: str) -> None:
    assert is_refusal(text)
    assert is_refusal(f"\n {text.upper() if text.isascii() else text}")


@pytest.mark.parametrize("text", ANSWERS)
def test_answers_that_begin_like_refusals_are_none(text: str) -> None:
    assert not is_refusal(text)


def test_refused_answers_that_arent_taught_dont_count() -> None:
    refused = REFUSALS[0]
    pairs = [row | {"rejected": f"{refused} {row['rejected']}"} for row in preferred(9)]
    labels = [
        row if row["label"] else row | {"completion": f"{refused} {number}"} for number, row in enumerate(marked())
    ]
    assert quality_of(pairs) == quality_of(labels) == []


def test_loops_are_repetitive_and_lists_arent() -> None:
    assert is_repetitive(answer(1) + " and so on" * 200)
    assert is_repetitive("哈哈" * 300)
    assert not is_repetitive("and so on " * 20)
    assert not is_repetitive(" ".join(map(answer, range(20))))
    assert not is_repetitive("\n".join(f"{number}. {answer(number)[:20]}" for number in range(100)))
    assert not is_repetitive("\ud800" * 10)


@given(st.lists(st.integers(0, 10_000), max_size=19))
def test_few_lengths_have_no_outliers(lengths: list[int]) -> None:
    assert deviations(lengths).tolist() == [0.0] * len(lengths)


def test_deviations_are_those_of_a_normal_distribution_of_logarithms() -> None:
    logs = np.random.default_rng(0).normal(6, 1, 20_001)
    away = deviations([round(length) for length in np.exp(logs)])
    assert away == pytest.approx((logs - 6), abs=0.15)
    assert deviations([100] * 40 + [399])[-1] < 4 < deviations([100] * 40 + [500])[-1]


def test_short_answers_are_normal_where_most_are_short() -> None:
    rows = [row | {"completion": ["yes", "no", "maybe so"][n % 3]} for n, row in enumerate(asked())]
    quality = examine(rows, range(40), "rows")[0]
    assert (quality.median_answer_characters, quality.very_short_answers) == (3, 0)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Dear {{name}}", True),
        ("{{ customer.name }}", False),
        ("${{ secrets }}", False),
        ("```\n{{ name }}\n```", False),
        ("```\n{{ name }}", False),
        ("see {{ name }} and ```{{ other }}```", True),
        ("write <your text here>", True),
        ("<div>", False),
        ("LOREM IPSUM DOLOR sit", True),
    ],
)
def test_placeholders_that_are_never_meant(text: str, found: bool) -> None:
    assert (placeholder(text, "strict") is not None) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [("Yours, [Your Name]", True), ("[insert date]", True), ("[Company Name]", True), ("[1] [sic] [Yesterday]", False)],
)
def test_placeholders_of_letters_are_a_note(text: str, found: bool) -> None:
    assert (placeholder(text, "loose") is not None) == found
    rows = asked()
    rows[3] = rows[3] | {"completion": f"{rows[3]['completion']} {text}"}
    assert [(one.code, one.severity) for one in quality_of(rows)] == ([("D032", "note")] if found else [])


MARKED = [
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n",
    "Hello<|im_end|>",
    "<|start_header_id|>assistant<|end_header_id|>\n\nHello",
    "<|header_start|>user<|header_end|>\n\nHi",
    "Hello<|eot_id|>",
    "<s>[INST] Hi [/INST] Hello</s>",
    "[INST] Hi",
    "Hi [/INST] Hello </s>",
    "<bos><start_of_turn>user\nHi",
    "Hello<end_of_turn>\n",
    "<|user|>\nHi<|end|>\n",
    "Hi\n<|assistant|>\nHello",
    "<|end|> <|assistant|>Hello",
    "<\uff5cUser\uff5c>Hi",
    "Hello<\uff5cend\u2581of\u2581sentence\uff5c>",
    "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>Hi",
    "<|start|>assistant<|channel|>final",
    "The end.<|endoftext|>",
]
UNMARKED = [
    "The mark <|im_start|> begins a turn, <|im_end|> ends it.",
    "Mistral's [INST] and [/INST] stand around questions.",
    "<user>Hi</user> <s>struck</s>",
    "x <|user|> y",
    "if a <|b|> c",
    "[INSTALL] it",
    "<start_of_turn>x",
]


@pytest.mark.parametrize("text", [*MARKED, *UNMARKED])
def test_what_chat_templates_write_around_turns(text: str) -> None:
    rows = asked()
    rows[3] = rows[3] | {"completion": text}
    found = [one for one in quality_of(rows) if one.code == "D049"]
    assert len(found) == (text in MARKED)
    if found:
        assert found[0].what.startswith("1 of 40 rows has a chat template's own marks in its text (row 4), as \"")
        assert examine(rows, range(1, 41), "x")[0].template_markup == 1


def test_markup_in_any_turn_counts() -> None:
    talk = [{"role": "user", "content": "a\n<|assistant|>\nb"}, {"role": "assistant", "content": "c"}]
    assert [one.code for one in quality_of([{"messages": talk}])] == ["D049"]


@pytest.mark.parametrize("text", ["fiancÃ© and friends", "a caf\ufffd here", "itâ€™s raining"])
def test_mojibake(text: str) -> None:
    part = mojibake(text)
    assert part
    assert part in text


@pytest.mark.parametrize("text", ["fiancé, naïve \u2013 it\u2019s", "שיר השירים ᾎσμα", "東京 — Köln", "plain"])
def test_foreign_characters_are_no_mojibake(text: str) -> None:
    assert mojibake(text) is None


def test_languages_are_told_of_long_enough_words() -> None:
    german = "Der alte Bäcker verkauft am Morgen frisches Brot und erzählt den Kindern Geschichten vom Meer. "
    assert language(german) == "de"
    assert language("The old farmer repairs wooden boats behind the station every Sunday without much noise.") == "en"
    assert language("Guten Tag") is None
    assert language("1 2 3 4 5 6 7 8 9 " * 20) is None
    assert language("```" + german) is None


def test_samples_are_stated() -> None:
    rows = [{"prompt": f"Où est le numéro {number} ?", "completion": answer(number)} for number in range(6_000)]
    quality, findings = examine(rows, range(1, 6_001), "rows")
    assert quality.sampled == {"mojibake": 5_000, "languages": 2_000}
    assert quality.languages == {"en": 2_000}
    assert [finding.code for finding in findings] == []


@given(st.integers(0, 10_000), st.integers(1, 100))
def test_a_sample_is_spread_evenly(count: int, most: int) -> None:
    chosen = sample(count, most)
    assert len(set(chosen)) == len(chosen) == min(count, most)
    assert all(0 <= number < count for number in chosen)
    if count > most > 1:
        assert (chosen[0], chosen[-1]) == (0, count - 1)


def test_few_pairs_claim_no_bias() -> None:
    longer = [row | {"chosen": row["chosen"] + " " + answer(700 + n)} for n, row in enumerate(preferred())]
    assert [one.code for one in quality_of(longer)] == ["D035"]
    assert quality_of(longer[:10]) == []
    shorter = [row | {"chosen": row["rejected"], "rejected": row["chosen"]} for row in longer]
    (finding,) = quality_of(shorter)
    assert "In 100% of 40 pairs the chosen answer is the shorter one" in finding.what


def test_length_bias_is_a_sign_test() -> None:
    rows = [
        said({"prompt": "p", "chosen": "a" * (2 if n < 8 else 1), "rejected": "b" * (1 if n < 8 else 2)})
        for n in range(10)
    ]
    rows.append(said({"prompt": "p", "chosen": "a", "rejected": "b"}))
    bias = length_bias(rows)
    assert (bias.pairs, bias.longer, bias.share, bias.ratio) == (10, 8, 0.8, 2.0)
    assert bias.p == pytest.approx(2 * (1 + 10 + 45) / 1024)
    assert length_bias(rows[-1:]).share == 0.5


@pytest.mark.parametrize(
    ("good", "bad", "advice"),
    [
        (30, 10, None),
        (31, 10, "Set `training: {undesirable_weight: 2.70}`."),
        (10, 31, "Set `training: {desirable_weight: 3.56}`."),
        (40, 0, "Add answers that are marked as bad."),
        (0, 40, "Add answers that are marked as good."),
    ],
)
def test_labels_may_be_uneven_up_to_three_to_one(good: int, bad: int, advice: str | None) -> None:
    rows = [row | {"label": number < good} for number, row in enumerate(asked(good + bad))]
    assert [finding.fix for finding in quality_of(rows) if finding.code == "D036"] == ([advice] if advice else [])


def test_one_answer_of_twenty_and_of_four_in_five() -> None:
    rows = [row | {"completion": "yes" if n % 5 else f"no {n}"} for n, row in enumerate(asked(20))]
    assert "D037" in {finding.code for finding in quality_of(rows)}
    assert "D037" not in {finding.code for finding in quality_of(rows[:19])}
    rows[1] = rows[1] | {"completion": "perhaps"}
    assert "D037" not in {finding.code for finding in quality_of(rows)}


Messages = list[dict[str, Any]]
ASKED: Messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
GIVEN: Messages = [{"role": "assistant", "content": "So."}]


def test_what_rows_of_each_layout_say() -> None:
    plain = said({"prompt": "Why?", "completion": "So."})
    assert (plain.whole, plain.prompt, plain.question, plain.answers) == ("Why?\nSo.", "Why?", "Why?", ("So.",))
    assert said({"prompt": ASKED, "completion": GIVEN}) == plain
    assert said({"messages": ASKED + GIVEN}) == plain
    assert said({"prompt": "Why?", "completion": "So.", "label": False}).taught == ()
    assert said({"prompt": "Why?", "completion": "So.", "label": True}).taught == ("So.",)
    pair = said({"prompt": ASKED, "chosen": GIVEN, "rejected": "No."})
    assert (pair.whole, pair.answers, pair.rejected) == ("Why?\nSo.\nNo.", ("So.",), "No.")
    text = said({"text": "Why? So."})
    assert (text.whole, text.prompt, text.question, text.answers) == ("Why? So.", "Why? So.", "", ("Why? So.",))
    assert said({"prompt": "Why?", "reference": "So."}).answers == ()


def test_turns_without_words_and_parts_of_text() -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]}
    parts = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Look"}]}
    row = said({"messages": [parts, call, {"role": "tool", "content": "7"}, *GIVEN, *ASKED, *GIVEN]})
    assert row.answers == ("So.", "So.")
    assert row.prompt == "\nLook\n7\nSo.\nWhy?"
    assert row.question == "Why?"
    assert said({"messages": [parts]}).answers == ()


def test_equal_rows_have_equal_fingerprints() -> None:
    row = {"prompt": "Why?", "completion": "\ud800"}
    assert fingerprint(row) == fingerprint(dict(reversed(row.items())))
    assert fingerprint(row) != fingerprint(row | {"completion": "So"})


@settings(max_examples=15, deadline=None)
@given(st.permutations(range(30)))
def test_figures_dont_depend_on_the_order_of_rows(order: list[int]) -> None:
    rows = asked(30)
    assert examine([rows[at] for at in order], order, "rows") == examine(rows, range(30), "rows")


def test_everything_empty_is_no_trouble() -> None:
    assert quality_of([]) == []
    assert [found.code for found in quality_of([{"prompt": "", "completion": ""}] * 3)] == ["D046"]
    assert quality_of([{"prompt": f"What is {n} times {n}?"} for n in range(9)]) == []

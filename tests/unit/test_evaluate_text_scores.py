"""Scores of answers whose words are like the right answer's: the numbers are the field's own tools'."""

import re
import string
from collections import Counter

import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from tunesmith.rewards import OfCorpus, make_shipped
from tunesmith.rewards.answer import Answer

ASCII = st.text(alphabet="abcABC the'.,-3 ", max_size=24)
SENTENCES = st.lists(
    st.sampled_from(["the", "cat", "sat", "on", "a", "mat", "and", "then", "it", "slept"]), max_size=8
).map(" ".join)


def score(name: str, said: str, right: object, **arguments: object) -> float | None:
    (value,) = make_shipped(name, arguments)(completions=[said], reference=[right])
    return value


def squad(text: str) -> str:
    """normalize_answer of SQuAD's official script."""
    text = "".join(char for char in text.lower() if char not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


@given(ASCII, ASCII)
def test_normalized_match_and_f1_are_squads(said: str, right: str) -> None:
    assert score("normalized_match", said, right) == float(squad(said) == squad(right))
    ours, theirs = (squad(text).split() for text in (said.strip(), right))
    if not ours or not theirs:
        expected = float(ours == theirs)
    else:
        same = sum((Counter(ours) & Counter(theirs)).values())
        precision, recall = same / len(ours), same / len(theirs)
        expected = 2 * precision * recall / (precision + recall) if same else 0.0
    assert score("token_f1", said, right) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "said", "right", "value"),
    [
        ("normalized_match", "«Ёлка»!", "ёлка", 1.0),
        ("normalized_match", "cafe\u0301", "Café", 1.0),
        ("normalized_match", "12", "1", 0.0),
        ("token_f1", "我在东京", "东京", 2 / 3),
        ("token_f1", "two cats", "two dogs", 0.5),
        ("rouge_l", "Привет мир", "привет, мир!", 1.0),
        ("rouge_l", "नमस्ते दुनिया", "नमस्ते", 2 / 3),
        ("contains", "It is red.", "Red", 1.0),
        ("contains", "I don't know", "no", 0.0),
        ("contains", "know no", "no", 1.0),
        ("contains", "unknown: no", "no", 1.0),
        ("contains", "No.", "no", 1.0),
        ("contains", "我在东京。", "东京", 1.0),
        ("contains", "a+b=c", "a+b", 1.0),
        ("contains", "anything", " ", None),
        ("contains", "anything", ["x", "thing", "anything"], 1.0),
        ("json", '{"a": 1}', None, 1.0),
        ("json", 'Here: {"a": 1}', None, 0.0),
        ("json", "NaN", None, 0.0),
        ("json", "", None, 0.0),
        ("chrf", "", "right", 0.0),
        ("bleu", "said", None, None),
        ("chrf", "said", [], None),
    ],
)
def test_what_a_score_gives(name: str, said: str, right: object, value: float | None) -> None:
    assert score(name, said, right) == (None if value is None else pytest.approx(value))


def test_contains_minds_case_where_told() -> None:
    assert score("contains", "It is red.", "Red", ignore_case=False) == 0.0


def test_only_the_fields_asked_for_count() -> None:
    said, right = '{"a": 1, "b": 2, "d": 0}', '{"a": 1, "b": 3, "c": 4}'
    assert score("json_fields", said, right) == 0.25
    assert score("json_fields", said, right, fields=["a", "b"]) == 0.5
    assert score("json_fields", said, right, fields=["a"]) == 1.0
    assert score("json_fields", '{"a": null}', "{}", fields=["a"]) == 0.0
    assert score("json_fields", said, right, fields=["x"]) == 1.0


@given(ASCII, ASCII)
def test_rouge_is_rouge_scores_own_where_it_knows_the_letters(said: str, right: str) -> None:
    theirs = RougeScorer(["rougeL"]).score(right, said)["rougeL"].fmeasure
    assert score("rouge_l", said, right) == pytest.approx(theirs)


def corpus(name: str, said: list[str], right: list[str], **arguments: object) -> float:
    """The score of all answers, from what each adds."""
    metric = make_shipped(name, arguments)
    assert isinstance(metric, OfCorpus)
    counts = metric.all_counts(completions=said, reference=right)
    return metric.total([sum(values) for values in zip(*counts, strict=True)])  # type: ignore[arg-type]


@given(st.lists(st.tuples(SENTENCES, SENTENCES.filter(bool)), min_size=1, max_size=5))
def test_bleu_and_chrf_of_all_answers_are_sacrebleus(pairs: list[tuple[str, str]]) -> None:
    said, right = map(list, zip(*pairs, strict=True))
    long = [*said, "the cat sat on the mat"], [*right, "a cat sat on the mat"]
    assert corpus("bleu", *long) == pytest.approx(sacrebleu.corpus_bleu(long[0], [long[1]]).score)
    assert corpus("chrf", said, right) == pytest.approx(sacrebleu.corpus_chrf(said, [right]).score)
    assert corpus("chrf", said, right, words=2) == pytest.approx(
        sacrebleu.corpus_chrf(said, [right], word_order=2).score
    )


@given(SENTENCES, st.lists(SENTENCES.filter(bool), min_size=1, max_size=3))
def test_bleu_and_chrf_of_one_answer_are_sacrebleus_for_all_its_right_answers(said: str, right: list[str]) -> None:
    assert score("bleu", said, right) == pytest.approx(sacrebleu.sentence_bleu(said, right).score / 100)
    assert score("chrf", said, right) == pytest.approx(sacrebleu.sentence_chrf(said, right).score / 100)


def test_right_answers_of_one_word_have_the_best_bleu() -> None:
    assert corpus("bleu", ["red", "blue"], ["red", "blue"]) == pytest.approx(100)


def test_chinese_is_taken_apart_where_told() -> None:
    said, right = "我们今天去北京吃饭", "我们今天去上海吃饭"
    assert score("bleu", said, right, tokenize="zh") == pytest.approx(
        sacrebleu.sentence_bleu(said, [right], tokenize="zh").score / 100
    )


def test_an_answer_is_found_before_it_is_compared() -> None:
    metric = make_shipped("bleu", {"answer": "#### (.*)"})
    assert isinstance(metric, OfCorpus)
    answer = Answer("so\n#### the cat sat on a mat", [], {"reference": "because #### the cat sat on a mat"})
    assert metric.score(answer) == pytest.approx(1.0)
    assert metric.total(metric.counts(answer) or []) == pytest.approx(100)
    assert metric.score(Answer("the cat sat on a mat", [], answer.row)) == 0.0

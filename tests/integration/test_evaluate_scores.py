"""Scores and multiple choice of a model that knows its rows, and of its base that doesn't."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.learnt import COLOURS, ROWS
from tests.support.reports import codes, comparison, run_folder
from tests.support.runs import SMALL, make_plan, write_split
from tunesmith.data.rows import COLUMNS
from tunesmith.evaluate import evaluate
from tunesmith.evaluate.choices import Choices, choices
from tunesmith.evaluate.likelihood import Likelihood, Loss
from tunesmith.evaluate.rows import Row
from tunesmith.evaluate.subject import Local
from tunesmith.models.load import load_model, load_tokenizer
from tunesmith.recipe.evaluation import Evaluation, Success
from tunesmith.rules import FindingsError

LABELS = ["red", "blue", "green"]
OFTEN = [{**ROWS[index % 3], "completion": ROWS[index % 3]["completion"]} for index in range(15)]
CHOSEN: dict[str, Any] = {"regression": False, "tasks": ["choice"]}


def with_columns(**columns: list[Any]) -> list[dict[str, Any]]:
    return [
        {**row, COLUMNS: dict(zip(columns, values, strict=True))}
        for row, *values in zip(ROWS, *columns.values(), strict=True)
    ]


def test_scores_are_metrics_and_the_first_is_what_the_verdict_rests_on(tmp_path: Path, knowing: Path) -> None:
    settings = Evaluation(regression=False, tasks=["exact_match"], scores=["chrf", "contains", "bleu"])
    report = evaluate(run_folder(tmp_path, knowing), settings)
    assert [one.metric for one in report.comparisons] == ["chrf", "contains", "bleu", "exact_match"]
    assert report.primary == "chrf"
    assert [comparison(report, name).tuned for name in ("chrf", "contains", "bleu")] == pytest.approx([100, 1, 100])
    assert comparison(report, "contains").test == "McNemar, exact, two-sided"
    assert comparison(report, "chrf").base < 50
    assert report.versions.keys() >= {"chrf", "bleu"}
    assert (report.fixed, report.broken) == (8, 0)
    assert report.graded, "rows that score more are not fixed"
    gains = [row.scores[1] - row.scores[0] for row in report.changed if row.scores]
    assert len(gains) == 8
    assert gains == sorted(gains, reverse=True)
    assert codes(report) == []


def test_the_metric_of_success_is_that_of_the_verdict(tmp_path: Path, knowing: Path) -> None:
    asked = {"regression": False, "tasks": ["exact_match"], "scores": ["contains"]}
    run = run_folder(tmp_path, knowing)
    for metric, primary in (("exact_match", "exact_match"), ("another", "contains"), (None, "contains")):
        report = evaluate(run, Evaluation(**asked, success=Success(metric=metric)))
        assert report.primary == primary
        assert report.conclusion is not None
        assert report.conclusion.met is (metric != "another")


def test_a_score_by_exact_match_takes_the_place_of_the_task(tmp_path: Path, knowing: Path) -> None:
    shouted = [
        {**row, COLUMNS: {"reference": [colour.upper(), "x"]}} for row, colour in zip(ROWS, COLOURS, strict=True)
    ]
    score = {"name": "exact_match", "arguments": {"ignore_case": True}}
    report = evaluate(
        run_folder(tmp_path, knowing, shouted), Evaluation(regression=False, tasks=["exact_match"], scores=[score])
    )
    assert [(one.metric, one.tuned) for one in report.comparisons] == [("exact_match", 1.0)]
    assert all(row.scores is None for row in report.changed)
    assert codes(report) == []


def test_a_function_is_given_what_a_reward_is(tmp_path: Path, knowing: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "async def close(prompts, completions, completion_ids, reference, shade, **rest):\n"
        "    assert set(rest) >= {'trainer_state', 'log_metric'} and prompts[0][0]['role'] == 'user'\n"
        "    said = [one[0]['content'] for one in completions]\n"
        "    return [len(text) + shade if shade else None for text, shade in zip(said, shade)]\n"
    )
    rows = with_columns(shade=[0.5, 0.25, None, 0, 1, 1, 1, 1])
    settings = Evaluation(regression=False, tasks=["loss"], scores=[f"{tmp_path}/mine.py:close"])
    (tmp_path / "run").mkdir()
    report = evaluate(run_folder(tmp_path / "run", knowing, rows), settings)
    right = COLOURS[:2] + COLOURS[4:]
    assert comparison(report, "close").tuned == pytest.approx(sum(map(len, right)) / 6 + 4.75 / 6)
    assert comparison(report, "close").rows == 6
    assert report.primary == "close"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise KeyError('x')", "raises KeyError"),
        ("return None", "gives None"),
        ("return [float('nan')] * len(completions)", "isn't finite"),
        ("return [1.0]", "gives 1 reward for"),
        ("return [None] * len(completions)", "None for every completion"),
    ],
)
def test_a_function_that_fails_is_told_before_a_model_answers(
    tmp_path: Path, knowing: Path, body: str, said: str
) -> None:
    (tmp_path / "mine.py").write_text(f"def bad(completions, **rest):\n    {body}\n")
    calls: list[Any] = []
    (tmp_path / "run").mkdir()
    folder = run_folder(tmp_path / "run", knowing)
    with pytest.raises(FindingsError) as caught:
        evaluate(
            folder,
            Evaluation(regression=False, scores=[f"{tmp_path}/mine.py:bad"]),
            progress=lambda *call: calls.append(call),
        )
    assert [(found.code, found.where) for found in caught.value.findings] == [("E024", "evaluation.scores")]
    assert said in caught.value.findings[0].what
    assert calls == []


def test_a_score_that_fails_on_the_answers_loses_nothing_else(tmp_path: Path, knowing: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def picky(completions, **rest):\n"
        "    texts = [one[0]['content'] for one in completions]\n"
        "    if not (set(texts) & {''}):\n        raise SystemExit(3)\n"
        "    return [float(len(text)) for text in texts]\n"
    )
    (tmp_path / "run").mkdir()
    settings = Evaluation(regression=False, tasks=["exact_match"], scores=[f"{tmp_path}/mine.py:picky", "json"])
    report = evaluate(run_folder(tmp_path / "run", knowing), settings)
    assert [one.metric for one in report.comparisons] == ["json", "exact_match"]
    assert report.primary == "json"
    (failed,) = (found for found in report.findings if found.code == "E024")
    assert (failed.severity, "ends the process (SystemExit: 3)" in failed.what) == ("error", True)


def test_a_score_without_an_opinion_is_told(tmp_path: Path, knowing: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def shy(completions, **rest):\n"
        "    return [None if one[0]['content'] else float(index) for index, one in enumerate(completions)]\n"
    )
    (tmp_path / "run").mkdir()
    settings = Evaluation(regression=False, tasks=["exact_match"], scores=[f"{tmp_path}/mine.py:shy"])
    report = evaluate(run_folder(tmp_path / "run", knowing), settings)
    assert "E027" in codes(report)
    assert report.primary == "exact_match"


def test_few_labels_have_a_macro_f1(tmp_path: Path, knowing: Path) -> None:
    report = evaluate(run_folder(tmp_path, knowing, OFTEN), Evaluation(regression=False, tasks=["exact_match"]))
    assert [one.metric for one in report.comparisons] == ["exact_match", "macro_f1"]
    assert (comparison(report, "macro_f1").base, comparison(report, "macro_f1").tuned) == (0.0, 1.0)
    assert report.primary == "exact_match"


@pytest.mark.parametrize("options", ["column", "training rows"])
def test_the_likeliest_option_is_the_answer(tmp_path: Path, knowing: Path, options: str) -> None:
    rows = with_columns(options=[COLOURS[index:] + COLOURS[:index] for index in range(8)])
    settings = Evaluation(**CHOSEN, choices="options" if options == "column" else None)
    folder = run_folder(tmp_path, knowing, rows, train=write_split(tmp_path, "trained", ROWS))
    report = evaluate(folder, settings)
    assert [one.metric for one in report.comparisons] == ["choice_accuracy", "choice_accuracy_per_byte"]
    assert [one.tuned for one in report.comparisons] == [1.0, 1.0]
    assert report.primary == "choice_accuracy"
    assert report.comparisons[0].base < 1.0
    assert report.fixed == round(8 * report.comparisons[0].difference)
    assert report.changed[0].tuned == report.changed[0].expected != report.changed[0].base
    assert "E030" not in codes(report)


def test_rows_without_their_right_option_are_left_out(tmp_path: Path, knowing: Path) -> None:
    rows = with_columns(options=[["red", "blue"], ["blue", "x"], ["red", "x"], None, *[["x", "y"]] * 4])
    report = evaluate(run_folder(tmp_path, knowing, rows), Evaluation(**CHOSEN, choices="options"))
    assert report.comparisons[0].rows == 2
    assert "E030" in codes(report)


def test_a_choice_without_options_is_refused(tmp_path: Path, knowing: Path) -> None:
    with pytest.raises(FindingsError, match="no options"):
        evaluate(run_folder(tmp_path, knowing), Evaluation(**CHOSEN, choices="elsewhere"))


@pytest.mark.parametrize("chat", [True, False])
def test_an_option_is_as_likely_as_its_tokens(tmp_path: Path, chat: bool) -> None:
    rows: list[dict[str, Any]] = ROWS if chat else [{"prompt": "Colour:", "completion": " red\n"}]
    plan = make_plan(tmp_path, rows, training={"max_length": 8})
    tokenizer, model = load_tokenizer(SMALL), load_model(SMALL, dtype="float32")
    (first, *_) = choices([Row(1, rows[0], {"options": ["red", "a long one"]})], "options", plan, tmp_path)
    assert first.right == 0
    taken = Choices([first], plan, 4, "data/test.jsonl").take(Local("base", model, tokenizer, 4), lambda *_: None)
    for option, nats in zip(["red", "a long one"], taken[1], strict=True):
        if chat:
            turns = [*rows[0]["prompt"], {"role": "assistant", "content": option}]
            before = tokenizer.apply_chat_template(turns[:-1], add_generation_prompt=True, tokenize=False)
            whole = tokenizer.apply_chat_template(turns, tokenize=False)
        else:
            before, whole = "Colour:", f"Colour: {option}\n{tokenizer.eos_token}"
        start, ids = len(tokenizer(before)["input_ids"]), torch.tensor([tokenizer(whole)["input_ids"]])
        with torch.inference_mode():
            likely = model(ids).logits.log_softmax(-1)[0, :-1].gather(1, ids[0, 1:, None])[start - 1 :]
        assert nats == pytest.approx(-float(likely.sum()), rel=1e-4)


def test_bits_per_byte_are_nats_over_the_bytes_of_the_text(tmp_path: Path, knowing: Path) -> None:
    rows = [{"text": f"the colour is {colour} é"} for colour in COLOURS]
    report = evaluate(run_folder(tmp_path, knowing, rows), Evaluation(regression=False))
    loss, bits = comparison(report, "loss"), comparison(report, "bits_per_byte")
    tokenizer = load_tokenizer(SMALL)
    lengths = [len(tokenizer(row["text"])["input_ids"]) for row in rows]
    # The first token is predicted from nothing; the text's end is trained.
    texts = [tokenizer.decode(tokenizer(row["text"])["input_ids"][1:]) for row in rows]
    nats = loss.base * sum(lengths)
    assert bits.base == pytest.approx(nats / math.log(2) / sum(len(text.encode()) for text in texts))
    assert bits.p_value == pytest.approx(loss.p_value)


def test_models_with_different_tokens_are_compared_by_the_byte_alone(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, ROWS)
    tokenizer = load_tokenizer(SMALL)
    measure = Likelihood([], {}, tokenizer, plan, 4, "data/test.jsonl")
    base = [Loss(row, 4.0, 2, 8) for row in range(1, 9)]
    tuned = [Loss(row, 2.0, 3, 4) for row in range(2, 10)]
    (bits,) = measure.compare(base, tuned).comparisons
    assert (bits.metric, bits.rows) == ("bits_per_byte", 7)
    assert bits.base == bits.tuned == pytest.approx(0.5 / math.log(2))
    assert [one.metric for one in measure.compare(base, base).comparisons] == ["loss", "perplexity", "bits_per_byte"]


def test_leaked_rows_can_be_left_out_of_all_measures(tmp_path: Path, knowing: Path) -> None:
    rows = with_columns(options=[COLOURS] * 8)
    folder = run_folder(tmp_path, knowing, rows, train=write_split(tmp_path, "trained", ROWS[:2]))
    settings = Evaluation(regression=False, tasks=["loss", "exact_match", "choice"], choices="options", scores=["chrf"])
    report = evaluate(folder, settings)
    assert {one.metric: one.unseen.rows for one in report.comparisons if one.unseen} == dict.fromkeys(
        ["loss", "bits_per_byte", "chrf", "exact_match", "choice_accuracy", "choice_accuracy_per_byte"], 6
    )


def test_rows_of_a_group_count_once(tmp_path: Path, knowing: Path) -> None:
    rows = with_columns(customer=["a", "b", None, "b", "a", "a", "b", 7], options=[COLOURS] * 8)
    settings = Evaluation(
        regression=False, tasks=["loss", "exact_match", "choice"], choices="options", scores=["chrf"], group="customer"
    )
    report = evaluate(run_folder(tmp_path, knowing, rows), settings)
    assert len(report.comparisons) == 6
    assert {(one.groups, one.rows) for one in report.comparisons} == {(4, 8)}

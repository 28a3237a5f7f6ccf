"""Two runs beside each other: each is asked, encoded and judged by its own tokenizer and its own preferences."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.support.learnt import COLOURS, ROWS
from tests.support.reports import codes, compared, quick, run_folder
from tests.support.runs import SMALL, make_plan
from tests.support.tiny import CHATML
from tunesmith.evaluate import evaluate
from tunesmith.evaluate.arms import Run
from tunesmith.evaluate.likelihood import Likelihood
from tunesmith.evaluate.measure import Answer
from tunesmith.evaluate.measures import MOST_OPEN, Given, prepare
from tunesmith.evaluate.outcome import Outcome
from tunesmith.evaluate.rows import Question, Row, encode, held_out
from tunesmith.evaluate.subject import Drawing, Local
from tunesmith.models.load import load_model, load_tokenizer
from tunesmith.progress import Progress, silent
from tunesmith.recipe.evaluation import Endpoint
from tunesmith.records import Plan


@pytest.mark.parametrize(
    ("method", "layout", "left", "metrics"),
    [
        ("dpo", "preference", 2, ["preference_accuracy", "chosen_loss"]),
        ("kto", "unpaired-preference", 1, ["desirable_loss"]),
    ],
)
def test_two_preference_runs_are_compared_by_what_each_of_them_prefers(
    tmp_path: Path, knowing: Path, method: str, layout: str, left: int, metrics: list[str]
) -> None:
    rows = [
        {
            "prompt": row["prompt"],
            "chosen": row["completion"],
            "rejected": [{"role": "assistant", "content": other}],
        }
        for row, other in zip(ROWS, [*COLOURS[1:], COLOURS[0]], strict=True)
    ]
    runs = []
    for name, result in (("run", knowing), ("other", SMALL)):
        folder = tmp_path / name
        folder.mkdir()
        make_plan(folder, rows, method=method, layout=layout)
        (folder / "model").symlink_to(result)
        runs.append(folder)
    report = evaluate(runs[0], quick(), against=runs[1])
    assert [one.metric for one in report.comparisons] == metrics
    alone = compared(evaluate(runs[1], quick()))  # of a run that changed nothing both sides are its own
    for one in report.comparisons:
        assert one.base == pytest.approx(alone[one.metric].tuned)
    (found,) = [one for one in report.findings if one.code == "E053"]
    assert f"{left} measure" in found.what
    assert "not against another run" in found.what
    assert report.primary == ("preference_accuracy" if method == "dpo" else None)


def letters() -> Any:
    """A tokenizer of other tokens than the built-in one: letter by letter."""
    alphabet = [*"abcdefghijklmnopqrstuvwxyz0123456789 ?\n<|_>/W", "<|im_start|>", "<|im_end|>"]
    made = Tokenizer(models.WordLevel({letter: number for number, letter in enumerate(alphabet)}, "?"))
    made.pre_tokenizer = pre_tokenizers.Split(Regex("."), behavior="isolated")
    made.decoder = decoders.Fuse()
    special = {"eos_token": "<|im_end|>", "additional_special_tokens": ["<|im_start|>"], "pad_token": "<|im_end|>"}
    return PreTrainedTokenizerFast(tokenizer_object=made, chat_template=CHATML, **special)


def given_two(folder: Path, **changes: Any) -> tuple[Given, Any]:
    """Two runs whose models cut a text into different tokens."""
    run = run_folder(folder / "run", SMALL, **changes)
    plan, foreign = Plan.load(run), letters()
    split, rows = held_out(run, plan, None)
    other = Run(folder / "other", plan, foreign)
    return Given(rows, split.path, plan, load_tokenizer(SMALL), quick(), "cpu", run, other), foreign


def room(given: Given) -> int:
    answers = prepare(given).answers
    assert answers is not None
    return answers.max_new_tokens


def test_answers_have_room_in_the_tokens_of_both_models(tmp_path: Path) -> None:
    given, _ = given_two(tmp_path)
    assert room(given) == 8 + 1 + 7, "yellow is six letters"
    tokenizer = given.tokenizer
    longest = max(len(tokenizer(colour, add_special_tokens=False)["input_ids"]) for colour in COLOURS)
    alone = replace(given, against=None)
    assert room(alone) == 8 + math.ceil(1.25 * longest) < room(given)
    assert room(replace(alone, settings=quick(max_new_tokens=3))) == 3
    served = quick(endpoint=Endpoint(url="http://127.0.0.1:1/v1", model="served"))
    wide = Row(9, {**ROWS[0], "completion": [{"role": "assistant", "content": " ".join(["customer"] * 20)}]})
    assert len(tokenizer(" ".join(["customer"] * 20))["input_ids"]) < 60
    assert room(replace(alone, rows=[wide], settings=served)) == 8 + math.ceil(1.25 * (20 * 9 // 2 - 1))
    cut = given.plan.model_copy(update={"training": {**given.plan.training, "max_completion_length": 5}})
    assert room(replace(alone, plan=cut)) == 5
    assert room(replace(given, plan=cut)) == room(given)


def test_e004_of_another_run_that_does_not_end_its_answers(tmp_path: Path, knowing: Path) -> None:
    run, other = run_folder(tmp_path / "run", knowing), run_folder(tmp_path / "other", SMALL)
    settings = quick(tasks=["exact_match"])
    (told,) = [one for one in evaluate(run, settings, against=other).findings if one.code == "E004"]
    assert "of the base model's answers" in told.what
    assert "E004" not in codes(evaluate(run, settings)), "a base was never taught to"


def test_rows_are_compared_whole_where_tokenizers_would_cut_them_elsewhere(tmp_path: Path) -> None:
    given, foreign = given_two(tmp_path, training={"max_length": 24})
    (measure,) = [one for one in prepare(given).measures if isinstance(one, Likelihood)]
    model = load_model(SMALL, dtype="float32")
    own = measure.take(Local("tuned", model, given.tokenizer, 8), silent)
    others = measure.take(Local("base", model, foreign, 8), silent)
    assert [(one.row, one.bytes) for one in others] == [(one.row, one.bytes) for one in own]
    whole = measure.compare(others, own)
    assert [(one.metric, one.rows) for one in whole.comparisons] == [("bits_per_byte", 8)]
    assert whole.findings == []
    longest = sorted(len(row.ids) for row in encode(given.rows, foreign, given.plan, max_length=None).values())
    model.config.max_position_embeddings = longest[1]
    fewer = measure.take(Local("base", model, foreign, 8), silent)
    assert 2 <= len(fewer) < 8
    outcome = measure.compare(fewer, own)
    assert outcome.comparisons[0].rows == len(fewer)
    (found,) = outcome.findings
    assert found.what == f"{8 - len(fewer)} of 8 rows can't be measured within the context of both models."
    model.config.max_position_embeddings = 4
    nothing = measure.compare(measure.take(Local("base", model, foreign, 8), silent), own)
    assert (nothing.comparisons, [one.code for one in nothing.findings]) == ([], ["E011"])


def test_open_answers_are_a_sample_of_all_rows_and_the_same_one_each_time(tmp_path: Path) -> None:
    given, _ = given_two(tmp_path)
    essay = [{"role": "assistant", "content": "one two three four five " * 30}]
    rows = [Row(number, {**ROWS[0], "completion": essay}) for number in range(1, 101)]
    numbers = []
    for _ in range(2):
        answers = prepare(replace(given, rows=rows, settings=quick(tasks=["exact_match"]))).answers
        assert answers is not None
        numbers.append([one.row.number for one in answers.asked])
    assert numbers[0] == numbers[1] == sorted(set(numbers[0]))
    assert len(numbers[0]) == MOST_OPEN
    assert max(numbers[0]) > 80, "a file in some order would show its first part alone"


def test_questions_that_a_model_could_not_answer_are_nobody_s_mistake(tmp_path: Path) -> None:
    given, _ = given_two(tmp_path)
    measure = prepare(replace(given, against=None, settings=quick(tasks=["exact_match"], scores=["chrf"]))).answers
    assert measure is not None

    class Speaker:
        def __init__(self, name: str, silent_on: set[int]) -> None:
            self.name, self.silent_on = name, silent_on

        def answers(self, questions: Sequence[Question], drawing: Drawing, progress: Progress) -> list[Answer]:
            return [
                Answer("", False, [], "too long")
                if one.row in self.silent_on
                else Answer(one.expected or "", True, [9])
                for one in questions
            ]

    def told(base: set[int], tuned: set[int]) -> Outcome:
        return measure.compare(
            *(measure.take(Speaker(name, rows), silent) for name, rows in (("base", base), ("tuned", tuned)))
        )

    outcome = told({1}, {2, 3})
    assert [(one.metric, one.rows, one.base, one.tuned) for one in outcome.comparisons] == [
        ("chrf", 5, 100.0, 100.0),
        ("exact_match", 5, 1.0, 1.0),
    ]
    assert [(one.code, one.what.split(" questions")[0]) for one in outcome.findings] == [
        ("E015", "1 of 8"),
        ("E015", "2 of 8"),
    ]
    assert outcome.sides is not None
    assert [side.answers for side in outcome.sides] == [5, 5]
    assert outcome.changed == []
    nothing = told(set(range(1, 6)), set(range(4, 9)))
    assert (nothing.comparisons, [one.code for one in nothing.findings]) == ([], ["E015", "E015"])

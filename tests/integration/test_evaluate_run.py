"""Evaluating run folders of which the outcome is known: models that really learnt their rows, and broken ones."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.learnt import COLOURS, ROWS, learn
from tests.support.reports import comparison, run_folder
from tests.support.runs import SMALL, make_plan
from tunesmith.errors import UsageError
from tunesmith.evaluate import evaluate
from tunesmith.evaluate.outcome import shortened
from tunesmith.models.load import load_model, load_tokenizer
from tunesmith.recipe.evaluation import Evaluation
from tunesmith.records import EvalReport


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter that knows ROWS by heart."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("adapter")
    tokenizer = load_tokenizer(SMALL)
    config = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.5, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(load_model(SMALL, dtype="float32"), config).eval()
    learn(model, tokenizer, ROWS, 60)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def codes(report: EvalReport) -> set[str]:
    return {finding.code for finding in report.findings}


@pytest.mark.parametrize("kind", ["knowing", "adapter"])
def test_a_model_that_learnt_its_rows_is_better_than_its_base(
    tmp_path: Path, request: pytest.FixtureRequest, kind: str
) -> None:
    folder = run_folder(tmp_path, request.getfixturevalue(kind))
    report = evaluate(folder, Evaluation(regression=False))
    match, loss = comparison(report, "exact_match"), comparison(report, "loss")
    assert (match.base, match.tuned, match.rows) == (0.0, 1.0, 8)
    assert match.p_value == pytest.approx(2 * 0.5**8)
    assert match.significant
    assert loss.tuned < 0.1
    assert loss.base > 1.0
    assert loss.p_value == 2 * 0.5**8
    assert loss.significant
    assert loss.base > math.log(1e6)
    assert [one.metric for one in report.comparisons] == ["loss", "bits_per_byte", "exact_match"], "perplexity too high"
    assert report.primary == "exact_match"
    assert (report.fixed, report.broken) == (8, 0)
    assert [(row.row, row.expected, row.tuned, row.change) for row in report.changed] == [
        (number, colour, colour, "fixed") for number, colour in enumerate(COLOURS, start=1)
    ]
    assert report.changed[2].prompt == "Which colour has number 3?"
    assert report.tuned.stop_rate == 1.0
    assert report.findings == []
    assert EvalReport.load(folder) == report


def test_the_base_arm_of_an_adapter_is_the_base_model(tmp_path: Path, adapter: Path, knowing: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    with_adapter = evaluate(run_folder(tmp_path / "one", adapter), Evaluation(regression=False))
    without = evaluate(run_folder(tmp_path / "two", knowing), Evaluation(regression=False))
    assert comparison(with_adapter, "loss").base == pytest.approx(comparison(without, "loss").base, rel=1e-6)
    assert with_adapter.base.stop_rate == without.base.stop_rate


def test_a_model_made_worse_is_found_worse(tmp_path: Path, knowing: Path) -> None:
    folder = run_folder(tmp_path, SMALL, base=knowing)
    report = evaluate(folder, Evaluation(regression=False))
    assert comparison(report, "exact_match").difference == -1.0
    assert (report.fixed, report.broken) == (0, 8)
    assert {row.change for row in report.changed} == {"broken"}
    assert "E003" in codes(report)
    assert "E002" not in codes(report)


def test_a_model_that_learnt_nothing_is_found_no_better(tmp_path: Path) -> None:
    report = evaluate(run_folder(tmp_path, SMALL), Evaluation(regression=False))
    assert comparison(report, "loss").difference == 0.0
    assert "E002" in codes(report)
    assert report.changed == []


def test_too_few_rows_say_so_and_nothing_else(tmp_path: Path, knowing: Path) -> None:
    report = evaluate(run_folder(tmp_path, knowing, ROWS[:5]), Evaluation(regression=False))
    assert codes(report) == {"E001"}
    match = comparison(report, "exact_match")
    assert (match.difference, match.p_value, match.significant) == (1.0, 0.0625, False)
    loss = comparison(report, "loss")
    assert (loss.interval, loss.p_value, loss.significant) == (None, 0.0625, False)


def test_rows_and_tasks_follow_the_settings(tmp_path: Path, knowing: Path) -> None:
    report = evaluate(run_folder(tmp_path, knowing), Evaluation(regression=False, tasks=["exact_match"], rows=6))
    assert [one.metric for one in report.comparisons] == ["exact_match"]
    assert report.rows == 6
    report = evaluate(tmp_path, Evaluation(regression=False, tasks=["loss"]))
    assert [one.metric for one in report.comparisons] == ["loss", "bits_per_byte"]
    assert report.primary == "loss"
    assert report.max_new_tokens is None
    assert report.tuned.stop_rate is None


@pytest.mark.parametrize("kind", ["knowing", "adapter"])
def test_answers_that_do_not_stop_are_found(tmp_path: Path, request: pytest.FixtureRequest, kind: str) -> None:
    # One token is no room for the answer and its stop token.
    report = evaluate(
        run_folder(tmp_path, request.getfixturevalue(kind)), Evaluation(regression=False, max_new_tokens=1)
    )
    assert report.max_new_tokens == 1
    assert report.tuned.stop_rate == 0.0
    assert "E004" in codes(report)


def test_space_around_an_expected_answer_does_not_count(tmp_path: Path, knowing: Path) -> None:
    rows = [
        row | {"completion": [{"role": "assistant", "content": f" {colour}\n"}]}
        for row, colour in zip(ROWS, COLOURS, strict=True)
    ]
    report = evaluate(run_folder(tmp_path, knowing, rows), Evaluation(regression=False, tasks=["exact_match"]))
    assert comparison(report, "exact_match").tuned == 1.0


def test_changed_rows_are_kept_up_to_twenty(tmp_path: Path, knowing: Path) -> None:
    report = evaluate(run_folder(tmp_path, knowing, ROWS * 3), Evaluation(regression=False, tasks=["exact_match"]))
    assert (report.fixed, len(report.changed)) == (24, 20)
    assert [row.row for row in report.changed] == list(range(1, 21))


def test_texts_of_changed_rows_are_shortened() -> None:
    assert shortened("x" * 500) == "x" * 500
    assert shortened("x" * 501) == "x" * 499 + "…"


def test_answers_get_a_quarter_more_room_than_the_longest_expected_one_and_a_little(
    tmp_path: Path, knowing: Path
) -> None:
    rows = [*ROWS, {**ROWS[0], "completion": [{"role": "assistant", "content": "a b c d e f g h i j"}]}]
    longest = len(load_tokenizer(SMALL)("a b c d e f g h i j")["input_ids"])
    report = evaluate(run_folder(tmp_path, knowing, rows), Evaluation(regression=False, tasks=["exact_match"]))
    assert report.max_new_tokens == math.ceil(longest * 5 / 4) + 8


def test_a_perplexity_beyond_floating_point_is_left_out(tmp_path: Path) -> None:
    result = tmp_path / "result"
    model = load_model(SMALL, dtype="float32")
    model.model.norm.weight.data.mul_(1000)
    model.save_pretrained(result)
    load_tokenizer(SMALL).save_pretrained(result)
    (tmp_path / "run").mkdir()
    report = evaluate(run_folder(tmp_path / "run", result), Evaluation(regression=False, tasks=["loss"]))
    assert comparison(report, "loss").tuned > 700
    assert [one.metric for one in report.comparisons] == ["loss", "bits_per_byte"]
    assert codes(report) == {"E003"}


def test_plain_text_is_compared_by_its_loss_only(tmp_path: Path, knowing: Path) -> None:
    rows = [{"text": f"the colour is {colour}"} for colour in COLOURS]
    report = evaluate(run_folder(tmp_path, knowing, rows), Evaluation(regression=False))
    assert [one.metric for one in report.comparisons] == ["loss", "perplexity", "bits_per_byte"]
    loss, perplexity, _ = report.comparisons
    assert loss.base < math.log(1e6)
    assert perplexity.base == pytest.approx(math.exp(loss.base))
    assert perplexity.difference == pytest.approx(math.exp(loss.tuned) - math.exp(loss.base))
    assert (perplexity.p_value, perplexity.significant) == (loss.p_value, loss.significant)
    assert "E005" in codes(report)


def test_rows_without_a_trained_token_are_left_out_of_the_loss(tmp_path: Path, knowing: Path) -> None:
    long = {"prompt": "colour " * 100, "completion": "red"}
    rows = [long] + [{"prompt": "Which? ", "completion": colour} for colour in COLOURS]
    report = evaluate(
        run_folder(tmp_path, knowing, rows, training={"max_length": 50}), Evaluation(regression=False, tasks=["loss"])
    )
    assert (report.rows, comparison(report, "loss").rows) == (9, 8)


def test_long_answers_that_nobody_matches_are_judged_by_the_loss(tmp_path: Path, knowing: Path) -> None:
    rows = [{"prompt": "Tell me. ", "completion": f"{colour} " + "and so on " * 40} for colour in COLOURS]
    report = evaluate(run_folder(tmp_path, knowing, rows), Evaluation(regression=False, max_new_tokens=5))
    assert report.primary == "loss"
    assert "E006" in codes(report)


def test_a_broken_model_is_an_error_and_leaves_a_readable_report(tmp_path: Path) -> None:
    result = tmp_path / "result"
    model = load_model(SMALL, dtype="float32")
    model.get_input_embeddings().weight.data.fill_(math.nan)
    model.save_pretrained(result)
    load_tokenizer(SMALL).save_pretrained(result)
    folder = tmp_path / "run"
    folder.mkdir()
    report = evaluate(run_folder(folder, result), Evaluation(regression=False))
    assert "E007" in codes(report)
    assert [one.metric for one in report.comparisons] == ["exact_match"]
    assert EvalReport.load(folder) == report


def test_progress_tells_of_both_models(tmp_path: Path, knowing: Path) -> None:
    seen: list[tuple[str, int, int | None]] = []
    evaluate(run_folder(tmp_path, knowing), Evaluation(regression=False), progress=lambda *call: seen.append(call))
    assert seen == [
        ("base: held-out loss", 8, 8),
        ("base: answers", 8, 8),
        ("tuned: held-out loss", 8, 8),
        ("tuned: answers", 8, 8),
    ]


def test_a_run_without_a_result_is_a_usage_error(tmp_path: Path) -> None:
    make_plan(tmp_path, ROWS)
    with pytest.raises(UsageError, match="no trained model"):
        evaluate(tmp_path, Evaluation(regression=False))


@pytest.mark.parametrize("layout", ["pair", "plain", "chat", "text", "cut", "all"])
def test_the_loss_is_the_one_that_the_trainer_computes(tmp_path: Path, knowing: Path, layout: str) -> None:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    rows: list[dict[str, Any]] = {
        "plain": [{"prompt": "Colour? ", "completion": f"{colour} it is"} for colour in COLOURS],
        "chat": [{"messages": 2 * (row["prompt"] + row["completion"])} for row in ROWS],
        "text": [{"text": f"the colour is {colour}"} for colour in COLOURS],
    }.get(layout, ROWS)
    training = {
        "max_length": 24 if layout == "cut" else 512,
        "assistant_only_loss": layout == "chat",
        "completion_only_loss": False if layout == "all" else None,
    }
    report = evaluate(
        run_folder(tmp_path, knowing, rows, training=training), Evaluation(regression=False, tasks=["loss"])
    )
    config = SFTConfig(
        output_dir=str(tmp_path / "trl"),
        per_device_eval_batch_size=8,
        use_cpu=True,
        bf16=False,
        report_to="none",
        **training,
    )
    trainer = SFTTrainer(
        model=load_model(SMALL, dtype="float32"),
        args=config,
        train_dataset=Dataset.from_list(rows),
        eval_dataset=Dataset.from_list(rows),
        processing_class=load_tokenizer(SMALL),
    )
    # One batch of all rows: the trainer averages batches, whatever their number of tokens.
    assert comparison(report, "loss").base == pytest.approx(trainer.evaluate()["eval_loss"], rel=1e-5)
